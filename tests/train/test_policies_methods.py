"""The table of the ways to train a policy."""

import pytest

from tureen_train.config import RecipeError
from tureen_train.policies.methods import METHODS, find_method


def test_a_method_is_found_by_the_name_that_recipes_use() -> None:
    assert find_method("dpo") is METHODS["dpo"]


def test_a_method_without_a_row_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"policy\.method: alchemy cannot be trained by this version; use .*dpo"):
        find_method("alchemy")
