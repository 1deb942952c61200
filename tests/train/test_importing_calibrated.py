"""An imported reward model is calibrated on pairs, and its evaluation is written beside it."""

import json
import statistics
from pathlib import Path

import plain_folders
import pytest
import torch
from core.test_plain_pickles import pickle_weights
from safetensors.torch import load_file, save_file
from serve.plain_models import make_talks, score_talks, serve_plain
from typer.testing import CliRunner, Result

from tureen_core.artifact import open_artifact
from tureen_train.__main__ import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments), "--licence", "MIT"])


def write_pairs(path: Path, count: int = 12) -> list[list[dict[str, str]]]:
    """Write pairs with one prompt each; return their conversations, the chosen one first."""
    talks = make_talks(2 * count, seed=5, turns=(1,))
    lines, told = [], []
    for chosen, rejected in zip(talks[::2], talks[1::2], strict=True):
        row = {"prompt": chosen[0]["content"], "chosen": chosen[1]["content"], "rejected": rejected[1]["content"]}
        lines.append(json.dumps(row))
        told += [[chosen[0], chosen[1]], [chosen[0], rejected[1]]]
    path.write_text("\n".join(lines) + "\n")
    return told


def test_scale_and_temperature_are_those_of_the_pairs(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs", seed=4)
    talks = write_pairs(tmp_path / "pairs.jsonl")
    out = tmp_path / "sealed"
    result = run(folder, out, "--calibrate", tmp_path / "pairs.jsonl")
    assert result.exit_code == 0, result.output
    with serve_plain(folder) as client:
        raw = [row["reward"] for row in score_talks(client, talks)]
    (objective,) = open_artifact(out).manifest.objectives
    assert objective.calibration is not None
    assert objective.calibration.mean == pytest.approx(statistics.fmean(raw), abs=1e-4)
    assert objective.calibration.std == pytest.approx(statistics.pstdev(raw), rel=1e-4)
    assert objective.calibration.temperature > 0.01
    assert "Its rewards are calibrated." in (out / "README.md").read_text()
    with serve_plain(out) as client:
        (card, *_) = client.get("/v1/models").json()["data"]
    assert card["calibrated"] is True
    report = tmp_path / "sealed-evaluation"
    assert f"the report: {report / 'report.html'}" in result.output
    scale = objective.calibration
    assert (
        f"reward: mean {scale.mean:.4g}, deviation {scale.std:.4g}, temperature {scale.temperature:.4g}"
        in result.output
    )
    assert "pair accuracy" in result.output
    told = json.loads((report / "results.json").read_text())
    assert told["model"]["artifact"] == "sealed"
    rows = [json.loads(line) for line in (report / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 12


def test_each_of_several_rewards_is_calibrated(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs", labels=2)
    write_pairs(tmp_path / "pairs.jsonl")
    result = run(folder, tmp_path / "sealed", "--objectives", "a,b", "--calibrate", tmp_path / "pairs.jsonl")
    assert result.exit_code == 0, result.output
    scales = [each.calibration for each in open_artifact(tmp_path / "sealed").manifest.objectives]
    assert None not in scales
    assert scales[0] != scales[1]
    assert {path.name for path in (tmp_path / "sealed-evaluation").iterdir()} == {"a", "b"}


def test_a_file_without_pairs_leaves_nothing(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs")
    (tmp_path / "pairs.jsonl").write_text("")
    assert run(folder, tmp_path / "sealed", "--calibrate", tmp_path / "pairs.jsonl").exit_code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "pairs.jsonl"}


def test_a_model_worse_than_chance_is_told(tmp_path: Path) -> None:
    """Give the model a head that prefers whatever it ranked lower before."""
    folder = plain_folders.classifier(tmp_path / "theirs", seed=4)
    write_pairs(tmp_path / "pairs.jsonl", count=1)
    outputs = []
    for name in ("one", "other"):
        result = run(folder, tmp_path / name, "--calibrate", tmp_path / "pairs.jsonl")
        assert result.exit_code == 0, result.output
        outputs.append("is worse than chance on these pairs" in result.output)
        tensors = load_file(folder / "model.safetensors")
        tensors["score.weight"] = -tensors["score.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert sorted(outputs) == [False, True]


def test_pickles_are_converted_on_the_way(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs")
    tensors = pickle_weights(folder, shards=2)
    told = run(folder, tmp_path / "sealed")
    assert told.exit_code == 1
    assert "--from pickle" in told.output
    result = run(folder, tmp_path / "sealed", "--from", "pickle")
    assert result.exit_code == 0, result.output
    artifact = open_artifact(tmp_path / "sealed")
    assert artifact.name == "theirs"
    found: dict[str, torch.Tensor] = {}
    for path in artifact.folder.glob("*.safetensors"):
        found |= load_file(path)
    assert found.keys() == tensors.keys()
    assert all(found[name].equal(tensors[name]) for name in tensors)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "sealed"}
