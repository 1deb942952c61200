"""Pickled weights become safetensors in another process, and no pickle runs code."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import plain_folders
import pytest
import torch
from safetensors.torch import load_file

from tureen_core.plain.options import PlainError
from tureen_core.plain.pickles import INDEX, convert_pickles


def pickle_weights(folder: Path, shards: int = 1) -> dict[str, torch.Tensor]:
    """Turn a folder's safetensors into pickles; return the tensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return tensors
    index: dict[str, str] = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
        part = {name: tensors[name] for name in names[number::shards]}
        torch.save(part, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return tensors


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_and_the_files_beside_them_are_kept(shards: int, tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs")
    tensors = pickle_weights(folder, shards)
    (folder / "modeling.py").write_text("raise SystemExit")
    out = convert_pickles(folder, tmp_path / "out")
    found: dict[str, torch.Tensor] = {}
    for path in out.glob("*.safetensors"):
        found |= load_file(path)
    assert found.keys() == tensors.keys()
    assert all(found[name].equal(tensors[name]) for name in tensors)
    assert not list(out.glob("*.bin"))
    assert not (out / "modeling.py").exists()
    assert (out / "tokenizer.json").is_file()
    if shards > 1:
        weight_map = json.loads((out / "model.safetensors.index.json").read_bytes())["weight_map"]
        assert all((out / file).is_file() for file in weight_map.values())
        assert weight_map.keys() == tensors.keys()


def test_shared_tensors_are_written_twice(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "c": shared.T}, tmp_path / "pytorch_model.bin")
    found = load_file(convert_pickles(tmp_path, tmp_path / "out") / "model.safetensors")
    assert found["a"].equal(shared)
    assert found["b"].equal(shared)
    assert found["c"].equal(shared.T)


class Evil:
    """An object whose pickle runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_refused_and_runs_nothing(write: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write({"score.weight": Evil(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(PlainError, match="its pickles cannot be converted: "):
        convert_pickles(tmp_path, tmp_path / "out")
    assert not mark.exists()
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": torch.ones(1)}}, {1: torch.ones(1)}])
def test_other_contents_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(PlainError, match="holds something else than tensors by name"):
        convert_pickles(tmp_path, tmp_path / "out")


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(PlainError, match=r"holds no pytorch_model\*\.bin: leave out --from pickle"):
        convert_pickles(tmp_path, tmp_path / "out")
    folder = plain_folders.classifier(tmp_path / "theirs")
    pickle_weights(folder, 2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(PlainError, match=r"pytorch_model-00002-of-00002\.bin is in .* and not in the folder"):
        convert_pickles(folder, tmp_path / "again")


def test_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("tureen_core.plain.pickles.START_SECONDS", 0.01)
    with pytest.raises(PlainError, match=r"were not converted within 0\.01 s"):
        convert_pickles(tmp_path, tmp_path / "out")
