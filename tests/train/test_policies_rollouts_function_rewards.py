"""Rewards by a user's function: what it is given, and that nothing it does wrong becomes a number."""

import pytest
from train.reward_sources import PROMPTS, TEXTS, answers, functions

from tureen_train.config import FunctionSource, RecipeError
from tureen_train.policies.rollouts.function_rewards import open_functions
from tureen_train.policies.rollouts.valuing import Value

__all__ = ["functions"]


def valued(module: str, name: str) -> list[Value]:
    source = FunctionSource(source="function", function=f"{module}:{name}")
    (valuer,) = open_functions([source])
    seen: list[int] = []
    values = valuer.value_samples(PROMPTS, answers(TEXTS), seen.append).values
    assert list(values) == list(valuer.names) == [name]
    assert [len(row) for row in values[name]] == [3, 2, 1]
    assert sum(seen) == 6
    return [each for row in values[name] for each in row]


def test_a_function_gets_each_answer_with_its_prompt(functions: str) -> None:
    assert [each.number for each in valued(functions, "length")] == [len(text) for row in TEXTS for text in row]
    assert [each.number for each in valued(functions, "asked")] == [4.0, 4.0, 4.0, 5.0, 5.0, 4.0]


def test_what_is_not_a_finite_number_is_no_reward(functions: str) -> None:
    found = valued(functions, "mixed")
    assert [each.number for each in found] == [1.5, None, None, None, 1.0, None]
    assert [each.error.removeprefix(f"{functions}:mixed ") for each in found] == [
        "",
        "returned str, not a number",
        "the reward is nan, not a finite number",
        "returned None",
        "",
        "the reward is -inf, not a finite number",
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [("few", "returned 1 rewards for 6 answers; return one for each"), ("lost", "raised KeyError: 'no judge'")],
)
def test_a_function_that_fails_rewards_no_answer_of_the_batch(functions: str, name: str, told: str) -> None:
    found = valued(functions, name)
    assert all(each.number is None for each in found)
    assert {each.error for each in found} == {f"{functions}:{name} {told}"}


def test_a_function_that_is_not_there_is_refused_by_name(functions: str) -> None:
    def opened(path: str) -> None:
        open_functions([FunctionSource(source="function", function=path)])

    with pytest.raises(RecipeError, match="cannot import no_such_module for function: no_such_module:f"):
        opened("no_such_module:f")
    with pytest.raises(RecipeError, match="has no function 'missing'; correct function"):
        opened(f"{functions}:missing")
    with pytest.raises(RecipeError, match="has no function 'LIMIT'"):
        opened(f"{functions}:LIMIT")
