"""The figures of a family, by hand."""

import math

import pytest

from tureen_train.families.answers import MeasuredAnswer
from tureen_train.families.figures import compare_with_base, correlate_sweep
from tureen_train.families.mixes import Sweep


def answers(mix: str, values: list[float], text: str = "a b a b", kl: float | None = None) -> list[MeasuredAnswer]:
    return [
        MeasuredAnswer(mix, f"p{place}", text, 4, place > 0, {"a": value, "b": -value, "a-judge": 1.0}, kl)
        for place, value in enumerate(values)
    ]


def test_a_gain_is_paired() -> None:
    """The rewards vary by ±100 over the prompts, and the gain by nothing: its interval has no width."""
    found = compare_with_base(
        {"base": answers("base", [100.0, -100.0, 0.0]), "a=1": answers("a=1", [100.5, -99.5, 0.5], kl=0.25)},
        "a",
        ["a", "b"],
        "a-judge",
    )
    own, other = found.gains["a"], found.gains["b"]
    assert (own.value, own.low, own.high) == pytest.approx((0.5, 0.5, 0.5))
    assert other.value == pytest.approx(-0.5)
    assert found.judged is not None
    assert found.judged.value == 0
    assert (found.tokens, found.finished, found.distinct, found.kl) == pytest.approx((4, 2 / 3, 2 / 3, 0.25))


def test_without_a_judge_and_a_divergence_there_are_none() -> None:
    found = compare_with_base({"base": answers("base", [0.0]), "a=1": answers("a=1", [1.0])}, "a", ["a"], None)
    assert found.judged is None
    assert math.isnan(found.kl)


def test_a_sweeps_correlations_are_of_each_end_with_its_own_weight() -> None:
    sweep = Sweep("a", "b", (0.0, 0.5, 1.0))
    found = {
        "a=1": answers("a=1", [3.0]),
        "a=0.5+b=0.5": answers("a=0.5+b=0.5", [1.0]),
        "b=1": answers("b=1", [2.0]),
    }
    # a falls 3, 1, 2 while its weight falls; b = −a rises −3, −1, −2 while its weight rises
    assert correlate_sweep(found, sweep) == pytest.approx({"a": 0.5, "b": 0.5})
