"""What is loaded: rewards, policy families, and the runtimes that they run on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tureen_core.artifact import Artifact
from tureen_core.calibration import Calibration
from tureen_core.manifest import Input
from tureen_core.soup import Semantics, Stack
from tureen_core.template import Renderer
from tureen_serve.runtimes.contract import Generator, Scorer, Stepper


@dataclass(frozen=True)
class Reward:
    """A loaded objective: its artifact, its column in the head, its scale, the fingerprint of its scores."""

    name: str
    artifact: Artifact
    column: int
    calibration: Calibration
    fingerprint: str
    renderer: Renderer

    @property
    def input(self) -> Input:
        """What it reads."""
        return self.artifact.manifest.input

    @property
    def gated(self) -> bool:
        """Whether it is made of the artifact's other rewards, weighed by the prompt."""
        return self.artifact.manifest.gated and self.column == self.artifact.manifest.rows


@dataclass(frozen=True)
class Family:
    """A loaded policy family: a base and the experts that can be souped over it.

    ``factor_obstacle`` is None where ``factor`` semantics are defined, else the reason why not.
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
    factor_obstacle: str | None
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
    runtime: Stepper | Generator


@dataclass(frozen=True)
class LoadedModels:
    """All of it. ``failure`` is None, or the sentence that says why it must not serve."""

    runtime: str
    backbones: tuple[Backbone, ...]
    policies: tuple[Policy, ...]
    failure: str | None = None

    def close(self) -> None:
        """End all runtimes."""
        for backbone in self.backbones:
            backbone.scorer.close()
        for policy in self.policies:
            policy.runtime.close()


@dataclass(frozen=True)
class LoadedBase:
    """What a runtime made of one base: scorers with the artifacts that each reads, and its families in order."""

    scorers: Sequence[tuple[Scorer, Sequence[Artifact]]]
    families: Sequence[Stepper | Generator]


class Runtime(Protocol):
    """What loads models.

    Attributes:
        dtype: what it computes in.
    """

    dtype: str

    def reserve_memory(self, engines: Sequence[str]) -> None:
        """Told the names of all that will be loaded, before the first; raises ``LoadError`` if they have no room."""

    def load_base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Mapping[str, Stack]
    ) -> LoadedBase:
        """Load a base once with its reward adapters and its families' experts."""

    def load_checkpoint(self, artifact: Artifact) -> Scorer:
        """Load a full reward checkpoint."""


def name_score_lane(folder: Path) -> str:
    """What it is called that scores on a base: a lane's name and, in vLLM, an engine's."""
    return f"{folder.name}-scores"
