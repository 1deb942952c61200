"""What is loaded: rewards, policy families, and the runtimes that they run on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tureen_core.artifact import Artifact
from tureen_core.calibration import Calibration
from tureen_core.soup import Semantics
from tureen_core.template import Renderer
from tureen_serve.runtimes.contract import Scorer, Stepper


@dataclass(frozen=True)
class Reward:
    """A loaded objective: its artifact, its column in the head, its scale, the fingerprint of its scores."""

    name: str
    artifact: Artifact
    column: int
    calibration: Calibration
    fingerprint: str
    renderer: Renderer


@dataclass(frozen=True)
class Family:
    """A loaded policy family: a base and the experts that can be souped over it.

    ``factorable`` is None where ``factor`` semantics are defined, else the reason why not.
    """

    name: str
    base: str
    experts: Mapping[str, Artifact]
    renderer: Renderer
    context: int
    presets: Mapping[str, Mapping[str, float]]
    default: Mapping[str, float]
    semantics: Semantics
    normalize: Literal["simplex", "none"]
    factorable: str | None
    fingerprint: str


@dataclass(frozen=True)
class Backbone:
    """A scorer and the rewards that it reads."""

    name: str
    scorer: Scorer
    rewards: tuple[Reward, ...]


@dataclass(frozen=True)
class Policy:
    """A family and what generates for it."""

    family: Family
    stepper: Stepper


@dataclass(frozen=True)
class Loaded:
    """All of it. ``failure`` is None, or the sentence that says why it must not serve."""

    runtime: str
    backbones: tuple[Backbone, ...]
    policies: tuple[Policy, ...]
    failure: str | None = None
