"""Groups of answers: their spread and ties."""

import itertools

import numpy as np
import pytest

from tureen_serve.watching.reward_watch import SPREADS, BucketCounts, RewardWatch


def test_a_value_at_a_bound_is_in_its_bucket() -> None:
    counts = BucketCounts((0.0, 1.0))
    for value in (-1, 0.0, 0.5, 1.0, 1.5):
        counts.add_value(value)
    assert (counts.counts, counts.total) == ([2, 2, 1], 2.0)


def test_spread_and_ties_are_those_of_numpy() -> None:
    draw = np.random.default_rng(5)
    groups = [draw.integers(0, 3, size).astype(float) for size in (2, 3, 8, 1, 5, 4)]
    watch = RewardWatch("v")
    for group in groups:
        watch.take_answers(group.tolist(), [9] * len(group), scaled=True, fitted=True)
    several = [group for group in groups if len(group) > 1]
    pairs = [a == b for group in several for a, b in itertools.combinations(group, 2)]
    assert (watch.pairs, watch.tied) == (len(pairs), sum(pairs))
    spreads = [group.std() for group in several]
    assert watch.spread.total == pytest.approx(sum(spreads))
    edges = [-np.inf, *np.nextafter(SPREADS, np.inf), np.inf]
    assert watch.spread.counts == np.histogram(spreads, edges)[0].tolist()


def test_equal_answers_have_a_spread_of_exactly_zero() -> None:
    watch = RewardWatch("v")
    watch.take_answers([0.1] * 7, [3] * 7, scaled=True, fitted=True)
    assert watch.spread.counts[0] == 1


def test_a_new_version_forgets_the_recent_scores_and_keeps_the_counts() -> None:
    watch = RewardWatch("v1")
    watch.take_answers([1.0, 2.0], [3, 4], scaled=True, fitted=True)
    watch.begin_version("v2")
    assert (watch.drift.texts, watch.lengths.join_blocks().count, watch.within.pool_blocks().count) == (0, 0, 0)
    assert (watch.pairs, watch.version) == (1, "v2")


def test_an_unscaled_reward_has_ties_and_length_only() -> None:
    watch = RewardWatch("v")
    watch.take_answers([1.0, 2.0], [3, 4], scaled=False, fitted=False)
    assert (watch.drift.texts, sum(watch.spread.counts), watch.pairs) == (0, 0, 1)
    assert watch.within.pool_blocks().correlation == pytest.approx(1)
