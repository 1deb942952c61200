"""OpenAI's ``best_of``: of several texts those that the policy finds likeliest, by their mean log-probability."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tureen_serve.runtimes.contract import TokenLogprob


class Scored(Protocol):
    """A text with the log-probabilities of its tokens."""

    @property
    def logprobs(self) -> Sequence[TokenLogprob]: ...


S = TypeVar("S", bound=Scored)


def keep_likeliest(texts: Sequence[S], size: int, count: int) -> list[S]:
    """Keep ``count`` of each ``size`` texts that follow each other: the likeliest first, of equals the first."""
    kept: list[S] = []
    for start in range(0, len(texts), size):
        kept += sorted(texts[start : start + size], key=_measure, reverse=True)[:count]
    return kept


def _measure(text: Scored) -> float:
    """The mean log-probability of a token in nats."""
    return sum(each.logprob for each in text.logprobs) / max(len(text.logprobs), 1)
