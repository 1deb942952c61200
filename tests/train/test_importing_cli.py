"""``tureen-train import``: an artifact of an expert that others trained, and what the command refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_experts import MERGED, save_full, save_lora, save_peft
from typer.testing import CliRunner, Result

from tureen_core.artifact import open_artifact
from tureen_train.__main__ import app
from tureen_train.importing import expert as module


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def import_expert(source: Path, base: Path, *more: object) -> Result:
    out = source.parent / f"{source.name}-artifact"
    return run("--expert", source, out, "--base", base, "--objective", "humour", "--licence", "MIT", *more)


def test_a_lora_becomes_an_artifact_with_a_card(base: Path, tmp_path: Path) -> None:
    save_lora(base, tmp_path / "funny", use_rslora=True)
    result = import_expert(tmp_path / "funny", base)
    assert result.exit_code == 0, result.output
    out = tmp_path / "funny-artifact"
    assert f"imported {out}: verify it with tureen-serve check {out}" in result.output
    manifest = open_artifact(out).manifest
    assert (manifest.kind, manifest.name, manifest.objectives[0].name) == ("expert", "humour", "humour")
    assert manifest.steering is not None
    assert manifest.steering.family == base.name
    assert manifest.training.licences == ["MIT"]
    assert len(manifest.probes) >= 4
    card = (out / "README.md").read_text()
    assert f"for `humour` on `{base.name}`, imported from `funny`" in card
    assert "| energy | 1 |" in card
    assert "Licence of the weights: MIT" in card


def test_name_family_and_ranks_are_as_asked(base: Path, tmp_path: Path) -> None:
    save_peft(base, tmp_path / "funny", MERGED["dora"])
    more = ("--family", "smol", "--name", "funny-v2", "--rank", 6, "--accept-energy", 0.5)
    result = import_expert(tmp_path / "funny", base, *more)
    assert result.exit_code == 0, result.output
    manifest = open_artifact(tmp_path / "funny-artifact").manifest
    assert (manifest.name, manifest.steering and manifest.steering.family) == ("funny-v2", "smol")
    assert manifest.training.metrics["import"]["largest_rank"] == 6
    assert manifest.training.recipe["import"]["accept"] == 0.5


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--rank", 2), "0.95 is asked: raise --rank or --energy, or accept it with --accept-energy"),
        (("--rank", 2, "--energy", 0.9), "rank and energy exclude each other"),
        (("--family", "f", "--name", "a b"), "'a b' cannot be a name"),
    ],
)
def test_what_cannot_be_imported_is_told_and_leaves_nothing(
    base: Path, tmp_path: Path, more: tuple[Any, ...], says: str
) -> None:
    save_full(base, tmp_path / "funny")
    result = import_expert(tmp_path / "funny", base, *more)
    assert result.exit_code == 1
    assert says in " ".join(result.output.split())
    assert [each.name for each in tmp_path.iterdir()] == ["funny"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--base", "BASE"), "--base is for experts: give --expert, or leave it out"),
        (("--expert", "--base", "BASE"), "--expert needs --base"),
        (("--expert", "--objective", "humour"), "--expert needs --base"),
        (("--expert", "--base", "nowhere", "--objective", "humour"), "'nowhere' is neither a folder"),
        (("--expert", "--base", "BASE", "--objective", "humour"), "say it with --licence"),
    ],
)
def test_what_is_missing_is_told(base: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    save_lora(base, tmp_path / "funny")
    (tmp_path / "funny" / "README.md").unlink(missing_ok=True)
    given = [str(base) if each == "BASE" else each for each in arguments]
    result = run(tmp_path / "funny", tmp_path / "out", *given)
    assert result.exit_code == 1
    assert says in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_told(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr(module, "import_expert", fill)
    save_lora(base, tmp_path / "funny")
    result = import_expert(tmp_path / "funny", base)
    assert (result.exit_code, "--device: cpu has too little memory" in result.output) == (1, True)
