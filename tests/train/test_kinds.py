"""The table of the kinds of run."""

from tureen_train.config.recipes import KINDS as RECIPE_KINDS
from tureen_train.kinds import KINDS


def test_every_kind_of_recipe_has_a_row() -> None:
    assert list(KINDS) == RECIPE_KINDS


def test_a_row_names_its_manifests_kind() -> None:
    assert {name: row.artifact().kind for name, row in KINDS.items()} == {"reward": "reward", "expert": "expert"}
