"""The table of the methods."""

from typing import Any, get_args

from tureen_train.config import RewardLoss
from tureen_train.rewards.methods import METHODS


def test_every_loss_of_a_recipe_has_a_row() -> None:
    tagged: tuple[Any, ...] = get_args(get_args(RewardLoss)[0])
    names = [get_args(each)[1].tag for each in tagged]
    assert sorted(METHODS) == sorted(names)
