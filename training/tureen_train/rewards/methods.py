"""The table of the ways to train a reward model. A new one is a row here, its settings in ``config``, and its file.

Imports are lazy, so that a run imports the method it uses and no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tureen_core.template import Renderer
from tureen_train.config import RewardRun
from tureen_train.rewards.method import Method


def _return_unchanged(run: RewardRun) -> RewardRun:
    return run


@dataclass(frozen=True)
class MethodRow:
    """One way to train a reward model.

    Attributes:
        make: makes the method of a completed recipe.
        complete: fills in the keys of a recipe that its ``model.start`` decides.
    """

    make: Callable[[RewardRun, Renderer], Any]
    complete: Callable[[RewardRun], RewardRun] = _return_unchanged


def _attributes(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.attributes import AttributesMethod

    return AttributesMethod(run, renderer)


def _gate(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.gate import GateMethod

    return GateMethod(run, renderer)


def _complete_attributes(run: RewardRun) -> RewardRun:
    from tureen_train.rewards.rated_records import name_attributes

    return name_attributes(run)


def _complete_gate(run: RewardRun) -> RewardRun:
    from tureen_train.rewards.gate import fill_in_attributes

    return fill_in_attributes(run)


def _odin(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.odin import OdinMethod

    return OdinMethod(run, renderer)


def _pair(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.pairs import PairMethod

    return PairMethod(run, renderer)


def _ranking(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.ranking import RankingMethod

    return RankingMethod(run, renderer)


def _steps(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.steps import StepsMethod

    return StepsMethod(run, renderer)


METHODS: Mapping[str, MethodRow] = {
    "attributes": MethodRow(_attributes, complete=_complete_attributes),
    "gate": MethodRow(_gate, complete=_complete_gate),
    "odin": MethodRow(_odin),
    "pair": MethodRow(_pair),
    "ranking": MethodRow(_ranking),
    "steps": MethodRow(_steps),
}


def complete_recipe(run: RewardRun) -> RewardRun:
    """Return a recipe with the keys filled in that its ``model.start`` decides.

    Raises:
        RecipeError: the recipe has other values for them.
    """
    return METHODS[run.loss.method].complete(run)


def find_method(run: RewardRun, renderer: Renderer) -> Method:
    """Make the method that a completed recipe's ``loss.method`` names."""
    method: Method = METHODS[run.loss.method].make(run, renderer)
    return method
