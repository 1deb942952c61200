"""What a recipe may say of attributes, of ODIN and of a gate."""

from pathlib import Path
from typing import Any

import pytest

from tureen_train.config import RecipeError, RewardRun, read_recipe, resolve_recipe


def run(**loss: Any) -> RewardRun:
    made = resolve_recipe({"kind": "reward", "name": "rated", "data": {"train": [{"path": "rows.json"}]}, "loss": loss})
    assert isinstance(made, RewardRun)
    return made


def test_attributes_are_rows_and_ridge_leaves_the_backbone() -> None:
    gradient = run(method="attributes", attributes=["a", "b"]).loss
    ridge = run(method="attributes", attributes=["a", "b"], fit="ridge").loss
    assert (gradient.rows, ridge.rows, gradient.input) == (2, 2, "conversation")
    assert (getattr(gradient, "frozen", None), getattr(ridge, "frozen", None)) == (False, True)
    assert getattr(ridge, "alphas", None) == [10.0**power for power in range(-4, 5)]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"attributes": ["a b"]}, "loss.attributes: 'a b' is not a valid name"),
        ({"attributes": ["a", "a"]}, "loss.attributes: an attribute is listed twice: a, a"),
        ({"attributes": ["a"], "alphas": [0.0]}, "loss.alphas: a ridge penalty must be positive"),
        ({"attributes": ["a"], "fit": "lasso"}, "loss.fit"),
        ({"attributes": ["a"], "validation": 1.0}, "loss.validation"),
    ],
    ids=str,
)
def test_what_cannot_be_fitted_is_named_by_its_key(loss: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run(method="attributes", **loss)


def test_a_gates_defaults_are_those_published() -> None:
    gate = run(method="gate").loss.model_dump()
    assert (gate["width"], gate["depth"], gate["dropout"]) == (1024, 3, 0.2)
    assert (gate["temperature"], gate["scale"], gate["threshold"]) == (10.0, 1.0, 0.03)


def test_the_second_stage_of_armorm_goes_on_from_the_first() -> None:
    first, second = read_recipe("rlhflow/attributes"), read_recipe("rlhflow/gate")
    assert isinstance(first, RewardRun)
    assert isinstance(second, RewardRun)
    assert first.loss.rows == 19
    assert second.model.start == f"{first.output}/artifact"
    assert second.model.lora == first.model.lora
    assert second.reading == first.reading
    assert getattr(second.loss, "verbosity", None) in getattr(first.loss, "attributes", [])


def test_odin_has_two_rows() -> None:
    odin = run(method="odin").loss
    assert odin.rows == 2
    assert Path(run(method="odin").output).name == "rated"
