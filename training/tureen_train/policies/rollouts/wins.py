"""Rewards from comparisons: an answer's share of wins against the other answers to its prompt. Pure."""

from collections.abc import Sequence
from itertools import combinations

from tureen_train.judge.comparisons import Judgement
from tureen_train.policies.rollouts.valuing import Value

ALONE = "it is the only answer to its prompt, and this reward compares answers"


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
