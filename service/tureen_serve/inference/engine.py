"""The engine: from names to lanes. Everything that is loaded, and the two things one can ask of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tureen.errors import TureenError
from tureen_core.artifact import Artifact
from tureen_core.calibration import Calibration
from tureen_core.soup import Semantics
from tureen_core.template import Messages, Renderer
from tureen_serve.runtimes.contract import Delta, Sampling

Priority = Literal["interactive", "default", "batch"]
SOUP = "soup"


@dataclass(frozen=True)
class Group:
    """One prompt's answers to score. A finished conversation is a group without prompt and one answer."""

    answers: Sequence[Messages]
    prompt: Messages = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one answer: raw rewards by objective, or the error that stands in their place."""

    raw: Mapping[str, float]
    tokens: int = 0
    cached: int = 0
    truncated: bool = False
    error: TureenError | None = None


@dataclass(frozen=True)
class Reward:
    """A loaded objective: its artifact, its column in the head, its scale, the fingerprint of its scores."""

    name: str
    artifact: Artifact
    column: int
    calibration: Calibration
    fingerprint: str


@dataclass(frozen=True)
class Family:
    """A loaded policy family: a base and the experts that can be souped over it."""

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


class Engine:
    """Loaded rewards and families, by name.

    Attributes:
        rewards: objective name → :class:`Reward`.
        families: family name → :class:`Family`; the first one answers a request that names none.
        runtime: ``transformers`` or ``vllm``, and why it was chosen.
    """

    rewards: Mapping[str, Reward]
    families: Mapping[str, Family]
    runtime: str

    @property
    def failure(self) -> str | None:
        """None when ready, else the sentence that says why not (loading, a probe that differs, a dead runtime)."""
        raise NotImplementedError

    async def score(
        self,
        groups: Sequence[Group],
        objectives: Sequence[str],
        *,
        soup: Mapping[str, float] | None = None,
        truncate: bool = False,
        priority: Priority = "default",
    ) -> list[list[Outcome]]:
        """Raw rewards of every answer for every objective.

        A bad answer carries its error (``param`` relative to the group: ``candidates[1]`` or ``messages[0].role``) and
        the others are untouched. With ``soup`` (canonical weights over objectives) one reward named ``soup`` is read
        from the souped adapters and heads instead.

        Raises:
            Unavailable: the queue is full; nothing of the call was queued.
            ServerFault: the runtime failed.
        """
        raise NotImplementedError

    def generate(
        self,
        family: str,
        ids: Sequence[int],
        sampling: Sampling,
        weights: Mapping[str, float],
        semantics: Semantics = "delta",
    ) -> AsyncIterator[Delta]:
        """Stream one text. ``weights`` are canonical expert weights, empty for the bare base."""
        raise NotImplementedError
