"""The flags of plain models: which there are, to which model they apply, and what is said of wrong ones."""

from pathlib import Path

import pytest
import yaml
from serve.artifacts import write_manifest

from tureen_core.plain.option_flags import name_flags, read_plain_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_serve.commands.plain_flags import make_reward_entries
from tureen_serve.settings import RewardEntry, SettingsError


def read(**given: str) -> PlainOptions:
    return read_plain_flags(given, name_flags())


def test_the_flags_apply_to_the_only_plain_model(tmp_path: Path) -> None:
    artifact = str(write_manifest(tmp_path / "sealed", "a"))
    plain = read(objectives="good")
    for source in ("org/name", "s3://bucket/x", str(tmp_path)):
        assert make_reward_entries([artifact, source], plain) == [
            RewardEntry(path=artifact),
            RewardEntry(path=source, objectives=("good",)),
        ]
    assert make_reward_entries(["a", "b"], NO_OPTIONS) == [RewardEntry(path="a"), RewardEntry(path="b")]


def test_flags_without_one_plain_model_are_refused(tmp_path: Path) -> None:
    artifact = str(write_manifest(tmp_path / "sealed", "a"))
    with pytest.raises(SettingsError, match="--template is for a plain model: name it with --reward"):
        make_reward_entries([], read(template="chatml"))
    with pytest.raises(SettingsError, match="--template is for plain models, and each --reward is an artifact"):
        make_reward_entries([artifact], read(template="chatml"))


def test_for_several_plain_models_the_error_is_a_file_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(SettingsError, match="--objectives: of which --reward\\? 2 of them are plain") as error:
        make_reward_entries(["one", "org/two"], read(objectives="good", max_length="64"))
    assert yaml.safe_load(str(error.value).partition("\n\n")[2]) == {
        "rewards": [{"path": str(tmp_path / "one"), "objectives": ["good"], "max_length": 64}, {"path": "org/two"}]
    }
