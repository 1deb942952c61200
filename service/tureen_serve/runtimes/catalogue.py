"""The loaded models: rewards, policy families, and the runtimes that run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tureen_core.artifact import Artifact
from tureen_core.calibration import Calibration
from tureen_core.manifest import Input
from tureen_core.soup import Semantics, Stack
from tureen_core.steering import InPromptSteering
from tureen_core.template import Renderer
from tureen_serve.reward_settings import RewardEntry
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.contract import Generator, Scorer, Stepper
from tureen_serve.runtimes.upstream_contract import Upstream


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


@dataclass(frozen=True, eq=False)
class OpenedReward:
    """A reward artifact that was verified.

    Attributes:
        entry: what named it.
        folder: of its base, or of its own weights.
        rewards: as they are served.
        bases: what was known of its base then.
        state: a digest of the names, sizes and times of its files; see :func:`root_folder.compute_state`.
    """

    entry: RewardEntry
    artifact: Artifact
    folder: Path
    rewards: tuple[Reward, ...]
    bases: Bases
    state: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its rewards."""
        return tuple(each.name for each in self.rewards)

    @property
    def fingerprint(self) -> str:
        """The hash of what changes a score."""
        return self.rewards[0].fingerprint


@dataclass(frozen=True)
class Family:
    """A loaded policy family: a base and the experts whose soups it serves, or a policy that is steered in its prompt.

    Attributes:
        base: the base's name, or that of an upstream's model.
        renderer: makes token ids of prompts; None for an upstream, which has a template and a tokenizer of its own.
        context: the largest number of tokens of a prompt and its text together; 0 for an upstream, which checks it.
        experts: the adapters over the base, by name; of a policy steered in its prompt its own, if it is one.
        factor_obstacle: why ``factor`` semantics are not defined; None if they are.
        steering: how the prompt is steered; None for a soup.
        policy: the artifact of a policy that is steered in its prompt; None for a base that is.
    """

    name: str
    base: str
    experts: Mapping[str, Artifact]
    renderer: Renderer | None
    context: int
    presets: Mapping[str, Mapping[str, float]]
    default: Mapping[str, float]
    semantics: Semantics
    normalize: Literal["simplex", "none"]
    factor_obstacle: str | None
    fingerprint: str
    steering: InPromptSteering | None = None
    policy: Artifact | None = None

    @property
    def objectives(self) -> list[str]:
        """What preferences weigh: the experts of a soup, or the objectives that a prompt states."""
        return list(self.experts) if self.steering is None else self.steering.names


@dataclass(frozen=True)
class Backbone:
    """A scorer and the rewards that it computes. ``speed`` is in tokens a second; 0 if it was not measured."""

    name: str
    scorer: Scorer
    rewards: tuple[Reward, ...]
    speed: float = 0.0

    def close(self) -> None:
        """Free the weights."""
        self.scorer.close()


@dataclass(frozen=True)
class Policy:
    """A family and the runtime that generates its texts. ``speed`` is as a backbone's, with many texts at once."""

    family: Family
    runtime: Stepper | Generator
    speed: float = 0.0


@dataclass(frozen=True)
class UpstreamFamily:
    """A family and the upstream that writes its texts."""

    family: Family
    upstream: Upstream


@dataclass(frozen=True)
class LoadedModels:
    """All loaded models. ``failure`` is None, or a sentence that says why the server must not serve them.

    ``runtime`` names the runtime and why it was chosen, for the log. ``loader`` is the runtime itself, for models that
    are loaded later, and ``opened`` what the backbones were loaded from. ``order`` has the names of all families as the
    settings have them.
    """

    runtime: str
    backbones: tuple[Backbone, ...]
    policies: tuple[Policy, ...]
    failure: str | None = None
    loader: "Runtime | None" = None
    opened: tuple[OpenedReward, ...] = ()
    upstreams: tuple[UpstreamFamily, ...] = ()
    order: tuple[str, ...] = ()

    def close(self) -> None:
        """End all runtimes."""
        for backbone in self.backbones:
            backbone.close()
        for policy in self.policies:
            policy.runtime.close()


NO_MODELS = LoadedModels("none", (), ())


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

    def find_late_obstacle(self, artifact: Artifact, folder: Path) -> str | None:
        """Say why a reward model cannot be loaded or replaced while the server runs; None if it can.

        Args:
            folder: of its base, or of its own weights.
        """

    def measure_late(self, folder: Path, artifacts: Sequence[Artifact]) -> int:
        """Estimate the bytes that :meth:`load_late` adds: weights that are not loaded yet."""

    def find_free_bytes(self) -> int | None:
        """Find the free memory of the device; None if it is this machine's own memory."""

    def load_late(self, folder: Path, artifacts: Sequence[Artifact]) -> Scorer:
        """Load reward adapters of one base, or one full checkpoint, beside all that is loaded."""


def name_score_lane(folder: Path) -> str:
    """Name the lane that scores on a base. In vLLM the engine has the same name."""
    return f"{folder.name}-scores"
