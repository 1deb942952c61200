"""What a command's flags name: rewards and experts, after the starter artifacts."""

from pathlib import Path

from serve.artifacts import write_manifest

from tureen_serve.commands.artifact_flags import read_artifacts
from tureen_serve.commands.expert_flags import ExpertFlags
from tureen_serve.settings import ExpertEntry, RewardEntry, build_starter_settings


def test_flags_name_artifacts_and_leave_the_rest_to_the_file(tmp_path: Path) -> None:
    expert = write_manifest(tmp_path / "calm", "a")
    found = read_artifacts(False, [RewardEntry(path=tmp_path / "helpful")], ExpertFlags([str(expert)]))
    assert found["rewards"] == [RewardEntry(path=tmp_path / "helpful")]
    assert [family.experts for family in found["families"]] == [[ExpertEntry(path=expert)]]
    assert read_artifacts(False, []) == {}


def test_the_starter_artifacts_come_first(tmp_path: Path) -> None:
    found = read_artifacts(True, [RewardEntry(path=tmp_path / "helpful")])
    assert found["rewards"] == [*build_starter_settings()["rewards"], RewardEntry(path=tmp_path / "helpful")]
    assert found["families"] == build_starter_settings()["families"]


def test_an_expert_of_others_joins_the_starters_family(tmp_path: Path) -> None:
    (family,) = read_artifacts(True, [], ExpertFlags([f"funny={tmp_path}"]))["families"]
    (starter,) = build_starter_settings()["families"]
    assert family.experts == [*starter.experts, ExpertEntry(path=tmp_path, name="funny")]
    assert (family.name, family.presets, family.base) == (starter.name, starter.presets, None)
