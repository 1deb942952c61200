"""LoRA reward adapters that PEFT saved: on the weights of one base, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.reward_adapters import HEAD, change_tensors, write_adapter, write_adapters

from tureen_core.plain.options import PlainError
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.sources import open_source
from tureen_serve.settings import RewardEntry


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tmp_path_factory.mktemp("adapters"))


def entries(folders: dict[str, Path]) -> list[RewardEntry]:
    return [RewardEntry(path=folder, name=name) for name, folder in folders.items()]


def test_adapters_share_the_weights_of_copies_of_their_base(folders: dict[str, Path]) -> None:
    loaded = load_models(entries(folders), [], LoadOptions(dtype="float32", device="cpu"))
    assert [len(each.rewards) for each in loaded.backbones] == [3]


def test_a_base_is_asked_for_and_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["current"], tmp_path / "moved")
    path = tmp_path / "moved/adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "somebody/some-base"}
    path.write_text(json.dumps(config))
    with pytest.raises(PlainError, match="'somebody/some-base' is not on this machine: .* --adapter-base FOLDER"):
        open_source(RewardEntry(path=tmp_path / "moved"))
    base = folders["current"].parent / "base"
    artifact = open_source(RewardEntry(path=tmp_path / "moved", adapter_base=str(base)))
    assert artifact.manifest.base is not None
    assert artifact.manifest.base.model == str(base)


def damaged(folders: dict[str, Path], folder: Path, **changes: Any) -> RewardEntry:
    shutil.copytree(folders["current"], folder)
    change_tensors(folder, **changes)
    return RewardEntry(path=folder)


def test_a_head_that_is_missing_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match=r"no head \(score.weight\)"):
        open_source(damaged(folders, tmp_path / "headless", **{HEAD: None}))


def test_a_head_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="the head reads 16 units and the model has 32"):
        open_source(damaged(folders, tmp_path / "narrow", **{HEAD: torch.ones(1, 16)}))


def test_a_value_that_is_not_finite_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="holds a value that is not finite"):
        open_source(damaged(folders, tmp_path / "nan", **{HEAD: torch.full((1, 32), float("nan"))}))


def test_a_base_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny.base(tmp_path / "other", hidden=64)
    with pytest.raises(PlainError, match="name the right one with --adapter-base|the head reads 32 units"):
        open_source(RewardEntry(path=folders["current"], adapter_base=str(other)))


def test_dora_is_refused_with_the_soups_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    base = folders["current"].parent / "base"
    folder = write_adapter(tmp_path / "dora", base, 9, use_dora=True)
    with pytest.raises(PlainError, match="DoRA rescales the merged weight, so it is not a sum of low-rank terms"):
        open_source(RewardEntry(path=folder))


def test_a_base_for_a_whole_model_is_refused(folders: dict[str, Path]) -> None:
    base = folders["current"].parent / "base"
    with pytest.raises(PlainError, match="base is no adapter; leave it out"):
        open_source(RewardEntry(path=base, adapter_base=str(base)))
