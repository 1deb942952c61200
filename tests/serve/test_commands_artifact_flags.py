"""What a command's flags name: artifacts, each expert in its family."""

import json
from pathlib import Path

import pytest

from tureen_serve.commands.artifact_flags import group_experts, read_artifacts
from tureen_serve.settings import FamilyEntry, RewardEntry, SettingsError, build_starter_settings


def manifest(folder: Path, family: str | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "tureen.json").write_text(json.dumps({"steering": {"family": family}} if family else {}))
    return folder


def test_experts_join_the_family_that_their_manifest_names(tmp_path: Path) -> None:
    first, second, third = (manifest(tmp_path / name, name[0]) for name in ("a1", "a2", "b1"))
    found = group_experts([first, second, third], [FamilyEntry(name="b", base="base", presets={"p": {"b1": 1}})])
    assert {family.name: family.experts for family in found} == {"b": [third], "a": [first, second]}
    assert found[0].presets == {"p": {"b1": 1}}


def test_a_folder_without_an_expert_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", manifest(tmp_path / "reward", None)):
        with pytest.raises(SettingsError, match=f"{folder.name} is not an expert artifact"):
            group_experts([folder])


def test_flags_name_artifacts_and_leave_the_rest_to_the_file(tmp_path: Path) -> None:
    expert = manifest(tmp_path / "calm", "a")
    found = read_artifacts(False, [tmp_path / "helpful"], [expert])
    assert found["rewards"] == [RewardEntry(path=tmp_path / "helpful")]
    assert [family.experts for family in found["families"]] == [[expert]]
    assert read_artifacts(False, [], []) == {}


def test_the_starter_artifacts_come_first(tmp_path: Path) -> None:
    found = read_artifacts(True, [tmp_path / "helpful"], [])
    assert found["rewards"] == [*build_starter_settings()["rewards"], RewardEntry(path=tmp_path / "helpful")]
    assert found["families"] == build_starter_settings()["families"]
