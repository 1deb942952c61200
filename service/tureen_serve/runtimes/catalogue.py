"""The loaded models: rewards, policy families, and the runtimes that run them."""

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
    """A loaded objective: its artifact, its column of the head, its scale, and the fingerprint of its scores.

    ``calibration`` is None if the reward is uncalibrated.
    """

    name: str
    artifact: Artifact
    column: int
    calibration: Calibration | None
    fingerprint: str
    renderer: Renderer

    @property
    def input(self) -> Input:
        """What the model reads: a conversation, a pair of answers, or steps."""
        return self.artifact.manifest.input

    @property
    def gated(self) -> bool:
        """Whether this objective is the sum of the artifact's other rewards, weighed by the prompt."""
        return self.artifact.manifest.gated and self.column == self.artifact.manifest.rows

    @property
    def gate_opening(self) -> tuple[int, ...]:
        """The ids after the token at which the gate reads the prompt; see :class:`tureen_core.head_rule.HeadRule`."""
        return self.renderer.frame.opening_ids if self.artifact.manifest.head.gate_at == "turn" else ()


@dataclass(frozen=True)
class Family:
    """A loaded policy family: a base and the experts whose soups it serves.

    ``factor_obstacle`` says why ``factor`` semantics are not defined; it is None if they are.
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
    """A scorer and the rewards that it computes."""

    name: str
    scorer: Scorer
    rewards: tuple[Reward, ...]


@dataclass(frozen=True)
class Policy:
    """A family and the runtime that generates its texts."""

    family: Family
    runtime: Stepper | Generator


@dataclass(frozen=True)
class LoadedModels:
    """All loaded models. ``failure`` is None, or a sentence that says why the server must not serve them.

    ``runtime`` names the runtime and why it was chosen, for the log. ``loader`` is the runtime itself, for models that
    are loaded later.
    """

    runtime: str
    backbones: tuple[Backbone, ...]
    policies: tuple[Policy, ...]
    failure: str | None = None
    loader: "Runtime | None" = None

    def close(self) -> None:
        """End all runtimes."""
        for backbone in self.backbones:
            backbone.scorer.close()
        for policy in self.policies:
            policy.runtime.close()


@dataclass(frozen=True)
class LoadedBase:
    """A base that a runtime has loaded.

    Attributes:
        scorers: each scorer with the artifacts whose rewards it computes.
        families: the runtime of each policy family, in the order of the call.
    """

    scorers: Sequence[tuple[Scorer, Sequence[Artifact]]]
    families: Sequence[Stepper | Generator]


class Runtime(Protocol):
    """Loads models.

    Attributes:
        dtype: the dtype that the models compute in.
        workspace_bytes: the memory of this process that one batch takes at most, by the models that are loaded.
    """

    dtype: str
    workspace_bytes: int

    def limit_prompts(self, capacity: int) -> None:
        """Keep at most ``capacity`` bytes of computed prompts from now on."""

    def reserve_memory(self, engines: Sequence[str]) -> None:
        """Divide the device's memory among all engines that will be loaded. This is called once, before any is loaded.

        Raises:
            LoadError: there is not enough memory for them.
        """

    def load_base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Mapping[str, Stack]
    ) -> LoadedBase:
        """Load a base once, with all reward adapters and all experts that use it."""

    def load_checkpoint(self, artifact: Artifact) -> Scorer:
        """Load a full reward checkpoint."""


def name_score_lane(folder: Path) -> str:
    """Name the lane that scores on a base. In vLLM the engine has the same name."""
    return f"{folder.name}-scores"
