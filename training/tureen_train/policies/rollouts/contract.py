"""What passes between the parts of on-policy training: prompts, samples, rewards. The parts do not know each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tureen.records.schema import Conversation
from tureen_train.config import Sampling

Done = Callable[[int], object]


@dataclass(frozen=True)
class Prompt:
    """A prompt that a policy answers.

    Attributes:
        id: where it stands, as ``file:7``; no two prompts of a run have the same.
        messages: ends with the turn that is answered.
        weights: the weight of each reward for this prompt (P-MORL), or None for the recipe's.
        template_arguments: ``tools`` and other arguments of the chat template.
        desired: the rewards that the policy is asked to reach, on the scale of the run (RiC), or None.
    """

    id: str
    messages: Conversation
    weights: Mapping[str, float] | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Sample:
    """An answer that a policy wrote.

    Attributes:
        prompt: the prompt's id.
        number: counts a prompt's answers from 0.
        text: without the end token.
        ids: the ids as they were written, the end token among them; empty where a server gives none.
        finished: whether it ended with an end token, not at ``max_tokens``.
        logprobs: of each id under the weights that wrote it, without temperature; empty where they were not asked for.
    """

    prompt: str
    number: int
    text: str
    ids: tuple[int, ...] = ()
    finished: bool = True
    logprobs: tuple[float, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the answer has no text, or only white space."""
        return not self.text.strip()


@dataclass(frozen=True)
class Reward:
    """The rewards of a sample.

    Attributes:
        values: by the sources' names, each on the scale that its source asks for.
        total: their weighted sum; None if one of them failed. A failure is never a number.
        error: why, if ``total`` is None.
    """

    values: Mapping[str, float]
    total: float | None
    error: str = ""


class Sampler(Protocol):
    """Writes a policy's answers."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, done: Done) -> list[list[Sample]]:
        """Write ``sampling.count`` answers to each prompt.

        The answers to a prompt depend on the weights, the prompt and ``seed``; not on the other prompts where the
        engine can promise that.

        Args:
            done: called with the number of further answers that are written.
        """


class Rewarder(Protocol):
    """Rewards samples.

    Attributes:
        names: the names of its rewards.
        compares: whether one compares the answers to a prompt, so that a single answer has no reward.
    """

    @property
    def names(self) -> Sequence[str]:
        """As above."""

    @property
    def compares(self) -> bool:
        """As above."""

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]], done: Done) -> list[list[Reward]]:
        """Reward all answers of all prompts, in the same shape.

        Args:
            done: called with the number of further answers that are rewarded.
        """
