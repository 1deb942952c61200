"""What is read of a model: one objective raw, or several weighed as the server weighs them."""

import pytest

from tureen.errors import Unprocessable
from tureen.records.schema import BadOption
from tureen_core.calibration import Calibration
from tureen_train.evaluation.objectives import ObjectiveChoice

SCALES = {
    "a": Calibration(mean=1.0, std=2.0, temperature=4.0),
    "b": Calibration(mean=0.0, std=0.5, temperature=0.5),
}


def test_one_objective_is_raw_and_its_logit_is_over_the_temperature() -> None:
    choice = ObjectiveChoice.of(SCALES, "a", None, "it")
    found = choice.score_item([{"a": 3.0, "b": 9.0}, {"a": -1.0, "b": 0.0}], [False, True])
    assert found.rewards == [3, -1]
    assert found.logits == [0.75, -0.25]
    assert found.truncated == [False, True]
    assert (choice.name, choice.weighed) == ("a", False)


def test_weighed_objectives_are_calibrated_first() -> None:
    choice = ObjectiveChoice.of(SCALES, None, {"a": 3, "b": 1}, "it")
    assert choice.name == "a=0.75,b=0.25"
    (reward,) = choice.score_item([{"a": 3.0, "b": 2.0}], [False]).rewards
    assert reward == pytest.approx(0.75 * (3 - 1) / 2 + 0.25 * 2 / 0.5)
    (logit,) = choice.score_item([{"a": 3.0, "b": 2.0}], [False]).logits
    assert logit == pytest.approx(0.75 * 3 / 4 + 0.25 * 2 / 0.5)
    assert choice.describe()["weights"] == {"a": 0.75, "b": 0.25}


def test_an_objective_is_subtracted_where_weights_are_used_as_given() -> None:
    choice = ObjectiveChoice.of(SCALES, None, {"a": 1, "b": -0.5}, "it", "none")
    assert (choice.name, choice.weights) == ("a=1,b=-0.5", {"a": 1, "b": -0.5})
    found = choice.score_item([{"a": 3.0, "b": 2.0}], [False])
    assert found.rewards == [pytest.approx((3 - 1) / 2 - 0.5 * 2 / 0.5)]
    assert found.logits == [pytest.approx(3 / 4 - 0.5 * 2 / 0.5)]
    assert choice.write_weighing() == {"preferences": {"a": 1, "b": -0.5}, "normalize": "none"}
    assert ObjectiveChoice.of(SCALES, "a", None, "it").write_weighing() == {}
    with pytest.raises(Unprocessable, match="'b' is negative: give `--normalize none` to subtract a reward"):
        ObjectiveChoice.of(SCALES, None, {"a": 1, "b": -0.5}, "it")


def test_a_single_objective_needs_no_name() -> None:
    assert ObjectiveChoice.of({"a": SCALES["a"]}, None, None, "it").name == "a"


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (None, "--objective: name one of the rewards of it: a, b; or give --preferences"),
        ("c", "it has no reward 'c'; its rewards are a, b"),
    ],
)
def test_an_objective_must_be_there(objective: str | None, says: str) -> None:
    with pytest.raises(BadOption, match=says):
        ObjectiveChoice.of(SCALES, objective, None, "it")


def test_preferences_must_be_for_what_is_there() -> None:
    with pytest.raises(Unprocessable, match="unknown objective 'c'"):
        ObjectiveChoice.of(SCALES, None, {"c": 1}, "it")


def test_without_a_calibration_an_objective_is_raw_and_only_alone() -> None:
    scales = {**SCALES, "bare": None}
    for choice in (ObjectiveChoice.of(scales, "bare", None, "it"), ObjectiveChoice.of(scales, None, {"bare": 5}, "it")):
        found = choice.score_item([{"a": 9.0, "bare": 3.5}], [False])
        assert (found.rewards, found.logits, choice.describe()["calibration"]) == ([3.5], [3.5], {"bare": None})
    with pytest.raises(Unprocessable, match="bare has no calibration") as caught:
        ObjectiveChoice.of(scales, None, {"a": 1, "bare": 1}, "it")
    assert caught.value.param == "--preferences"
