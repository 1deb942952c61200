"""Tensors in a file: computed once, written in one step."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tureen_train.networks.tensor_cache import load_or_compute


def test_tensors_are_computed_once_and_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "states.safetensors"
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"states": torch.arange(3.0)}

    assert load_or_compute(path, make)["states"].tolist() == load_or_compute(path, make)["states"].tolist() == [0, 1, 2]
    assert made == [1]
    assert [each.name for each in path.parent.iterdir()] == ["states.safetensors"]
    assert load_file(path).keys() == {"states"}
