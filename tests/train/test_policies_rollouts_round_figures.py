"""Figures of a round, computed by hand."""

import math

import pytest

from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.round_figures import estimate_kl, measure_answers, measure_kept
from tureen_train.policies.rollouts.rounds import Answered, Written


def written(text: str, tokens: int, logprob: float | None, reference: float | None, finished: bool = True) -> Written:
    return Written(Sample("p", 0, text, tuple(range(tokens)), finished), logprob, reference)


ROUND = Answered(
    [Prompt("p", ()), Prompt("q", ())],
    [
        [written("a b a b", 4, -4.0, -6.0), written("", 1, -1.0, -0.5)],
        [written("so", 3, -2.0, None, finished=False), written("x y", 3, -3.0, -3.5)],
    ],
    [
        [Reward({"kind": 1.0, "short": 2.0}, 3.0), Reward({"kind": 0.0, "short": 4.0}, 4.0)],
        [Reward({"kind": 5.0}, None, "short: no"), Reward({"kind": 2.0, "short": 6.0}, 8.0)],
    ],
)


def test_figures_by_hand() -> None:
    assert measure_answers(ROUND) == pytest.approx(
        {
            "reward": 5.0,
            "reward_std": math.sqrt((4 + 1 + 9) / 3),
            "reward_kind": 2.0,
            "reward_kind_std": math.sqrt((1 + 4 + 9 + 0) / 4),
            "reward_short": 4.0,
            "reward_short_std": math.sqrt(8 / 3),
            "failed": 0.25,
            "empty": 0.25,
            "unfinished": 0.25,
            "length": 11 / 4,
            "distinct_2": (2 / 3 + 1) / 2,
            "kl_per_token": (2.0 - 0.5 + 0.5) / 8,
        }
    )


def test_figures_that_nothing_tells_are_left_out() -> None:
    served = Answered([Prompt("p", ())], [[Written(Sample("p", 0, "so"))]], [[Reward({}, None, "no")]])
    assert measure_answers(served) == {"failed": 1.0, "empty": 0.0, "unfinished": 0.0}
    assert measure_answers(Answered([], [], [])) == {}
    assert estimate_kl([written("a", 3, -1.0, None)]) is None


def test_the_kept_share_counts_answers_or_pairs() -> None:
    assert measure_kept(ROUND, 1, pairs=False) == {"kept_share": 0.25}
    assert measure_kept(ROUND, 1, pairs=True) == {"kept_share": 0.5}
    assert measure_kept(Answered([], [], []), 0, pairs=True) == {}
