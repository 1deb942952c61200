"""Which stages a run of Rewards-in-Context has."""

from pathlib import Path

import pytest
from train.test_policies_ric_method import find_steering, lines, small, trained
from train.tiny_runs import history

from tureen_train.config import RecipeError


def test_a_run_may_have_the_online_rounds_only(base: Path, tmp_path: Path) -> None:
    shared = {"prepared": str(tmp_path / "prepared")}
    first = trained(small(base, tmp_path, policy={**shared, "online": None}, output=str(tmp_path / "first")))
    model = {"start": str(first / "artifact")}
    later = trained(small(base, tmp_path, policy={**shared, "offline": False}, model=model, output=str(tmp_path / "b")))
    assert sorted(each.name for each in (later / "rounds").iterdir() if each.name.isdigit()) == ["001", "002"]
    assert find_steering(later) == find_steering(first)
    assert {entry["round"] for entry in history(later) if "round" in entry} == {1, 2}
    rows = lines(later / "rounds/001/kept.jsonl")
    assert {row["from"] for row in rows} == {"data", "round 1"}


def test_a_run_without_a_stage_or_a_start_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leaves nothing to train without `online`"):
        small(base, tmp_path, policy={"offline": False, "online": None})
    with pytest.raises(RecipeError, match=r"policy\.offline: false needs model\.start"):
        small(base, tmp_path, policy={"offline": False})
