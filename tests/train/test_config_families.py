"""The recipe of a family, and the experts' recipes that it makes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tureen_core.artifact import MANIFEST
from tureen_train.config import DpoPolicy, FamilyRun, IterativeDpoPolicy, RecipeError, read_family, read_recipe
from tureen_train.config.families import merge_keys
from tureen_train.families.train import find_experts

FAMILY: dict[str, Any] = {
    "kind": "family",
    "name": "zoo",
    "objectives": {
        "foxes": {
            "reward": {"source": "artifact", "path": "rewards/foxes"},
            "expert": {"data": {"train": [{"path": "foxes.json"}]}},
        },
        "wolves": {
            "reward": {"source": "artifact", "path": "rewards/wolves"},
            "judge": {"source": "artifact", "path": "rewards/other"},
            "expert": {"data": {"train": [{"path": "wolves.json"}]}, "optimisation": {"seed": 9}},
        },
    },
    "expert": {"data": {"holdout": 0.3}, "policy": {"method": "dpo", "beta": 0.2}, "optimisation": {"epochs": 2}},
    "stages": [{}, {"policy": {"method": "iterative-dpo", "rounds": 2}, "sampling": {"count": 8}}],
}


def written(folder: Path, raw: dict[str, Any]) -> str:
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def family(**changes: Any) -> FamilyRun:
    return FamilyRun.model_validate({**FAMILY, **changes})


def test_an_experts_recipe_is_the_familys_with_the_objectives_and_the_stages_keys() -> None:
    first, second = (family().plan_expert("wolves", stage) for stage in range(2))
    assert (first.name, first.objective, first.family) == ("wolves", "wolves", "zoo")
    assert (first.data.train[0].path, first.data.holdout) == ("wolves.json", 0.3)
    assert (first.optimisation.seed, first.optimisation.epochs) == (9, 2)
    assert isinstance(first.policy, DpoPolicy)
    assert (first.policy.beta, first.rewards) == (0.2, [])
    assert isinstance(second.policy, IterativeDpoPolicy)
    assert (second.policy.rounds, second.policy.beta) == (2, 0.1)
    assert [each.model_dump()["path"] for each in second.rewards] == ["rewards/wolves"]
    assert second.sampling.count == 8


def test_a_stage_starts_from_the_one_before() -> None:
    first, second = (family().plan_expert("foxes", stage) for stage in range(2))
    assert (first.output, first.model.start) == ("runs/zoo/foxes/stage-1", None)
    assert (second.output, second.model.start) == ("runs/zoo/foxes/stage-2", "runs/zoo/foxes/stage-1/artifact")


def test_an_objective_can_take_the_first_stages_only(tmp_path: Path) -> None:
    raw = copy.deepcopy(FAMILY)
    raw["objectives"]["foxes"]["stages"] = 1
    raw["output"] = str(tmp_path)
    found = read_family(written(tmp_path, raw))
    assert [found.count_stages(name) for name in found.objectives] == [1, 2]
    last = {name: found.plan_expert(name, found.count_stages(name) - 1).output for name in found.objectives}
    for folder in last.values():
        (Path(folder) / "artifact").mkdir(parents=True)
        (Path(folder) / "artifact" / MANIFEST).touch()
    experts = find_experts(found)
    assert {name: path.parent.name for name, path in experts.items()} == {"foxes": "stage-1", "wolves": "stage-2"}


def test_keys_are_merged_group_by_group() -> None:
    own = {"a": {"x": 1, "y": 2}, "b": [1], "c": {"method": "dpo", "beta": 1}}
    changed = merge_keys(own, {"a": {"y": 3}, "b": [2], "c": {"method": "sft"}})
    assert changed == {"a": {"x": 1, "y": 3}, "b": [2], "c": {"method": "sft"}}
    assert own["a"] == {"x": 1, "y": 2}


def test_a_family_reads_back(tmp_path: Path) -> None:
    found = read_family(written(tmp_path, FAMILY), ["measure.count=24"])
    assert found.measure.count == 24
    assert found.pairs == [("foxes", "wolves")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"presets": {"even": {"bears": 1.0}}}, "presets.even: there is no objective 'bears'"),
        ({"name": "a zoo"}, "'a zoo' is not a name"),
        ({"expert": {"policy": {"beta": 0}}}, "objectives.foxes, stage 1: policy.*beta"),
        (
            {"objectives": {"foxes": {**FAMILY["objectives"]["foxes"], "stages": 3}}},
            "objectives.foxes.stages: it takes 3 stages, and the family has 2",
        ),
        ({"measure": {"steps": 2}}, "measure: steps: 3 or more"),
        ({"measure": {"sampling": {"count": 2}}}, "measure: sampling.count"),
        ({"kind": "expert"}, "its kind is 'expert', not family"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        read_family(written(tmp_path, {**FAMILY, **changes}))


def test_run_sends_a_family_to_its_own_command(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train it with tureen-train family"):
        read_recipe(written(tmp_path, FAMILY))
