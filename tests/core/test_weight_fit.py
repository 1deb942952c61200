"""The fit of preference weights: against a grid, on simulated people, and where it has little to go on."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from tureen_core.weight_fit import WeightFit, describe_fit, fit_weights, round_weights
from tureen_core.weight_posterior import CENTRE, SPREAD, FitError

Rewards = list[dict[str, float]]


def choose(
    rng: np.random.Generator, weights: Sequence[float], decisiveness: float, pairs: int
) -> tuple[Rewards, Rewards]:
    """The choices of a simulated person between answers whose calibrated rewards are standard normal."""
    first, second = rng.standard_normal((2, pairs, len(weights)))
    chance = 1 / (1 + np.exp(-decisiveness * (first - second) @ np.array(weights)))
    won = (rng.random(pairs) < chance)[:, None]
    names = [f"o{number}" for number in range(len(weights))]
    tables = np.where(won, first, second), np.where(won, second, first)
    chosen, rejected = ([dict(zip(names, row, strict=True)) for row in table.tolist()] for table in tables)
    return chosen, rejected


def fit_person(
    seed: int, weights: Sequence[float], decisiveness: float = 3.0, pairs: int = 60, level: float = 0.9
) -> WeightFit:
    rng = np.random.default_rng(seed)
    return fit_weights(*choose(rng, weights, decisiveness, pairs), level=level)


def cover(fit: WeightFit, weights: Sequence[float]) -> list[bool]:
    return [low <= weight <= high for (low, high), weight in zip(fit.intervals.values(), weights, strict=True)]


def test_two_objectives_agree_with_the_posterior_on_a_grid() -> None:
    chosen, rejected = choose(np.random.default_rng(1), (0.3, 0.7), 3.0, 60)
    fit = fit_weights(chosen, rejected, level=0.8)
    gaps = np.array([[one[name] - other[name] for name in one] for one, other in zip(chosen, rejected, strict=True)])
    share = (np.arange(500) + 0.5) / 500
    logs = np.linspace(-4, 7, 400)
    odds = np.stack([share, 1 - share], 1) @ gaps.T
    log_post = np.array([-np.logaddexp(0, -math.exp(beta) * odds).sum(1) for beta in logs])
    log_post -= 0.5 * ((logs - CENTRE) / SPREAD)[:, None] ** 2
    mass = np.exp(log_post - log_post.max())
    mass /= mass.sum()
    assert fit.weights["o0"] == pytest.approx(mass.sum(0) @ share, abs=0.01)
    reached = np.cumsum(mass.sum(0))
    ends = [share[np.searchsorted(reached, each)] for each in (0.1, 0.9)]
    assert fit.intervals["o0"] == pytest.approx(ends, abs=0.02)
    middle = np.exp(logs[np.searchsorted(np.cumsum(mass.sum(1)), 0.5)])
    assert fit.decisiveness == pytest.approx(middle, rel=0.05)


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.5, 0.3, 0.2), (0.8, 0.1, 0.1)])
def test_sixty_choices_tell_the_weights_within_a_tenth(weights: tuple[float, ...]) -> None:
    errors = [
        abs(found - weight)
        for seed in range(25)
        for found, weight in zip(fit_person(seed, weights).weights.values(), weights, strict=True)
    ]
    assert np.mean(errors) < 0.07
    assert np.median(errors) < 0.07
    assert np.mean(np.array(errors) < 0.1) > 0.7


def test_intervals_hold_the_weights_of_as_many_people_as_they_say() -> None:
    rng = np.random.default_rng(7)
    held: dict[float, list[bool]] = {0.5: [], 0.9: []}
    for seed in range(120):
        weights = rng.dirichlet(np.ones(3))
        decisiveness = math.exp(CENTRE + SPREAD * rng.standard_normal())
        level = 0.5 if seed % 2 else 0.9
        held[level] += cover(
            fit_person(seed, weights.tolist(), decisiveness, int(rng.integers(5, 80)), level), weights.tolist()
        )
    for level, found in held.items():
        assert abs(np.mean(found) - level) < 0.11, (level, np.mean(found))  # three deviations of 60 people


def test_the_interval_of_a_person_with_one_objective_reaches_its_end() -> None:
    held = [cover(fit_person(seed, (1.0, 0.0, 0.0)), (1.0, 0.0, 0.0)) for seed in range(25)]
    assert np.mean(held) > 0.7  # the prior has hardly anyone in a corner, so it is less than 0.9


def test_with_more_choices_the_intervals_are_as_narrow_as_was_foretold() -> None:
    weights = (0.6, 0.4)
    widths = []
    for seed in range(20):
        fit = fit_person(seed, weights, pairs=30)
        assert fit.pairs_needed is not None
        longer = fit_person(1000 + seed, weights, pairs=30 + fit.pairs_needed)
        widths.append(max(high - low for low, high in longer.intervals.values()))
    assert np.median(widths) == pytest.approx(0.2, abs=0.05)


def test_more_choices_need_fewer_more() -> None:
    needed = [
        np.median([fit_person(seed, (0.5, 0.5), pairs=pairs).pairs_needed or 0 for seed in range(9)])
        for pairs in (10, 40, 160)
    ]
    assert all(later < earlier for earlier, later in pairwise(needed))
    assert fit_person(0, (0.5, 0.5), pairs=1000).pairs_needed == 0


def test_objectives_that_are_always_alike_cannot_be_told_apart() -> None:
    rewards = np.random.default_rng(3).standard_normal((2, 40)).tolist()
    chosen, rejected = ([{"a": each, "b": each} for each in side] for side in rewards)
    fit = fit_weights(chosen, rejected)
    assert fit.pairs_needed is None
    assert fit.weights["a"] == pytest.approx(0.5, abs=0.03)
    assert fit.intervals["a"][1] - fit.intervals["a"][0] > 0.9


def test_one_choice_tells_little() -> None:
    fit = fit_weights([{"a": 1.0, "b": 0.0}], [{"a": 0.0, "b": 1.0}])
    assert 0.5 < fit.weights["a"] < 0.8
    low, high = fit.intervals["a"]
    assert (low < 0.2, high) == (True, 1.0)


@pytest.mark.parametrize(("objectives", "pairs"), [(8, 200), (16, 20), (2, 1000)])
def test_any_size_is_computed(objectives: int, pairs: int) -> None:
    fit = fit_person(5, np.full(objectives, 1 / objectives).tolist(), pairs=pairs)
    assert sum(fit.weights.values()) == pytest.approx(1)
    assert fit.pairs == pairs


@pytest.mark.parametrize("factor", [1e-3, 1e5])
def test_the_unit_of_the_rewards_does_not_end_the_fit(factor: float) -> None:
    chosen, rejected = choose(np.random.default_rng(1), (0.3, 0.7), 3.0, 60)
    first, second = (
        [{name: factor * reward for name, reward in row.items()} for row in side] for side in (chosen, rejected)
    )
    fit = fit_weights(first, second)
    assert sum(fit.weights.values()) == pytest.approx(1)


def test_the_same_choices_give_the_same_fit_and_their_order_does_not_matter() -> None:
    chosen, rejected = choose(np.random.default_rng(2), (0.3, 0.7), 3.0, 20)
    fit = fit_weights(chosen, rejected)
    assert fit == fit_weights(chosen, rejected)
    assert fit_weights(chosen[::-1], rejected[::-1]).weights == pytest.approx(fit.weights, abs=0.02)


def test_choices_that_follow_the_weights_have_a_higher_likelihood_than_coin_flips() -> None:
    fit = fit_person(1, (0.7, 0.3))
    told = describe_fit(fit, "mine")
    assert told["chance_log_likelihood"] == pytest.approx(-60 * math.log(2))
    assert told["chance_log_likelihood"] < fit.log_likelihood < 0
    assert 0.7 < fit.accuracy <= 1
    assert told["preset"] == {"mine": round_weights(fit.weights)}


def test_equal_rewards_count_half_in_the_accuracy() -> None:
    rows = [{"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}]
    assert fit_weights(rows, [rows[0], {"a": -1.0, "b": -1.0}]).accuracy == 0.75


def test_rounded_weights_add_up_to_one() -> None:
    assert round_weights({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}) == {"a": 0.334, "b": 0.333, "c": 0.333}
    assert round_weights({"a": 0.9999, "b": 0.0001}) == {"a": 1.0}


def test_a_caller_may_end_the_fit() -> None:
    class LeftError(Exception):
        pass

    def leave() -> None:
        raise LeftError

    with pytest.raises(LeftError):
        fit_weights([{"a": 1.0, "b": 0.0}], [{"a": 0.0, "b": 1.0}], go_on=leave)


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        ([], [], "one or more pairs"),
        ([{"a": 1.0, "b": 1.0}], [], "1 chosen and 0 rejected"),
        ([{"a": 1.0}], [{"a": 1.0}], "give 2 to 16"),
        ([{"a": 1.0, "b": 1.0}], [{"a": 1.0, "c": 1.0}], "pair 0 has the rewards a, c, not a, b"),
        ([{"a": math.nan, "b": 1.0}], [{"a": 1.0, "b": 1.0}], "not a finite number"),
        ([{"a": 1e7, "b": 1.0}], [{"a": 1.0, "b": 1.0}], "deviations"),
    ],
)
def test_what_cannot_be_fitted_is_refused(chosen: Rewards, rejected: Rewards, words: str) -> None:
    with pytest.raises(FitError, match=words):
        fit_weights(chosen, rejected)
