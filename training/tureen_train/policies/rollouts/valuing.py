"""What each source of rewards gives: a number for each sample, or the reason why there is none."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tureen_train.policies.rollouts.contract import Done, Prompt, Sample

NORMALISED = {
    "end_marks": "texts whose end marks were removed",
    "control_marks": "texts whose control marks were read as plain text",
}


class RewardError(ValueError):
    """The answers of a run cannot be rewarded. The message names the reward and says what to do."""


@dataclass(frozen=True)
class Value:
    """The reward that one source gives a sample.

    Attributes:
        number: the reward; None if there is none.
        error: why there is none.
        truncated: whether the text was cut before it was read.
    """

    number: float | None
    error: str = ""
    truncated: bool = False


Samples = Sequence[Sequence[Sample]]


@dataclass(frozen=True)
class Valued:
    """What a valuer gives a batch.

    Attributes:
        values: for each reward a list in the shape of the samples.
        counts: for each reward, what else is counted, by a few words; it stands in ``account.json``.
    """

    values: Mapping[str, list[list[Value]]]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Valuer(Protocol):
    """Gives the values of one or more rewards, which it reads together.

    Attributes:
        names: the names of the rewards.
    """

    @property
    def names(self) -> Sequence[str]:
        """As above."""

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """Value all answers of all prompts.

        Args:
            done: called with the number of further answers that are read.

        Raises:
            RewardError: no later batch would fare better.
        """


def make_value(number: float, truncated: bool = False) -> Value:
    """Make the value of a number. One that is not finite is a failure."""
    if not math.isfinite(number):
        return Value(None, f"the reward is {number}, not a finite number", truncated)
    return Value(number, truncated=truncated)


def count_normalised(names: Sequence[str], texts: Iterable[Sequence[str]]) -> dict[str, dict[str, int]]:
    """Count the texts that were not read as they were sent, for each of some rewards that read the same texts.

    Args:
        texts: what was not read so of each text, see :class:`tureen_core.reading.Rendered`.
    """
    found = Counter(what for text in texts for what in sorted(set(text)))
    counts = {NORMALISED.get(what, f"texts whose field {what} is not read"): count for what, count in found.items()}
    return {name: counts for name in names if counts}


def shape_like(samples: Samples, values: Sequence[Value]) -> list[list[Value]]:
    """Give the values of all answers, one prompt after the other, the shape of ``samples``."""
    left = iter(values)
    return [[next(left) for _ in answers] for answers in samples]
