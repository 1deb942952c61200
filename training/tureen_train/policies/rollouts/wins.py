"""Rewards from comparisons: an answer's share of wins against the other answers to its prompt. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tureen_train.policies.rollouts.valuing import Value

ALONE = "it is the only answer to its prompt, and this reward compares answers"


@dataclass(frozen=True)
class Judgement:
    """What a comparison of two answers gives.

    Attributes:
        share: the first answer's share of the win, from 0 to 1, or the probability that it is better; None if the
            comparison failed.
        error: why it failed.
        truncated: whether a text was cut.
    """

    share: float | None
    error: str = ""
    truncated: bool = False


def share_wins(count: int, judged: Sequence[Judgement]) -> list[Value]:
    """Compute each answer's share of wins against the others to its prompt; a tie is half a win.

    An answer has a share if all its comparisons succeeded: one over fewer would be against other opponents.

    Args:
        count: the number of answers, N.
        judged: the comparisons of all pairs, in the order of ``combinations(range(N), 2)``.
    """
    if count == 1:
        return [Value(None, ALONE)]
    won, errors, cut = [0.0] * count, [""] * count, [False] * count
    for two, each in zip(combinations(range(count), 2), judged, strict=True):
        for place, answer in enumerate(two):
            cut[answer] |= each.truncated
            if each.share is None:
                errors[answer] = errors[answer] or each.error
            else:
                won[answer] += 1 - each.share if place else each.share
    return [
        Value(None, error, truncated) if error else Value(wins / (count - 1), truncated=truncated)
        for wins, error, truncated in zip(won, errors, cut, strict=True)
    ]
