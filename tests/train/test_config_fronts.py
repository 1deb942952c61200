"""The recipe of a front: what it refuses names its field."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tureen_train.config import RecipeError, read_front, read_recipe

STARTER = "front/starter"


def test_the_packaged_front_compares_the_starter_family_with_best_of_n() -> None:
    run = read_front(STARTER)
    assert [method.name for method in run.methods] == [
        "base",
        "soup-delta",
        "soup-factor",
        "best-of-8",
        "soup-best-of-4",
    ]
    assert [each.name for each in run.objectives.values()] == ["academy", "entertainment"]
    assert run.corner == [-4.0, -4.0]
    assert read_front(STARTER, ["reference=null"]).corner == [-2.0, -2.0]
    with pytest.raises(RecipeError, match="measure it with tureen-train front"):
        read_recipe(STARTER)
    with pytest.raises(RecipeError, match="its kind is 'family', not front"):
        read_front("starter/family")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"baseline": "none"}, "baseline: there is no method 'none'"),
        ({"servers": {"other": {"url": "http://localhost:1"}}}, "methods.0.server: there is no server 'starter'"),
        ({"servers": {"starter": {}}}, "give `url` of a server that runs, or `start`"),
        ({"reference": {"academy": 0}}, "reference: entertainment is missing"),
        ({"reference": {"zoo": 0}}, "reference: 'zoo' is no objective"),
        ({"grid": {"points": [{"zoo": 1}]}}, "grid.points.0: 'zoo' is no objective"),
        ({"grid": {"steps": 2, "points": [{"academy": 1}]}}, "points: give `steps` or `points`"),
        ({"methods": [{"name": "base", "server": "starter"}] * 2}, "methods: two are called 'base'"),
        ({"methods": [{"name": "base", "server": "starter", "steering": "models"}]}, "models: it is needed"),
    ],
    ids=str,
)
def test_what_does_not_agree_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "front.yaml"
    path.write_text(yaml.safe_dump({**read_front(STARTER).model_dump(), **change}))
    with pytest.raises(RecipeError) as caught:
        read_front(str(path))
    assert says in str(caught.value)


def test_raw_rewards_need_a_reference(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="reference: rewards that are raw have no common scale"):
        read_front(STARTER, ["objectives.academy.scale=raw", "reference=null"])
