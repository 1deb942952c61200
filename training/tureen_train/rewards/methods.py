"""The table of the ways to train a reward model. A new one is a row here, its settings in ``config``, and its file.

Imports are lazy, so that a run imports the method it uses and no other.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tureen_core.template import Renderer
from tureen_train.config import RewardRun
from tureen_train.rewards.method import Method


def _attributes(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.attributes import AttributesMethod

    return AttributesMethod(run, renderer)


def _gate(run: RewardRun, renderer: Renderer) -> Any:
    from tureen_train.rewards.gate import GateMethod

    return GateMethod(run, renderer)


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


METHODS: Mapping[str, Callable[[RewardRun, Renderer], Any]] = {
    "attributes": _attributes,
    "gate": _gate,
    "odin": _odin,
    "pair": _pair,
    "ranking": _ranking,
    "steps": _steps,
}


def find_method(run: RewardRun, renderer: Renderer) -> Method:
    """The method that a recipe's ``loss.method`` names."""
    method: Method = METHODS[run.loss.method](run, renderer)
    return method
