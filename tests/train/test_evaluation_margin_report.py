"""Scales side by side: judged on a run's own held-out part, and the whole command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from train import tiny_encoder
from train.tiny_runs import reward_run
from typer.testing import CliRunner

from tureen_train.__main__ import app
from tureen_train.config import RecipeError, RewardRun
from tureen_train.evaluation.margin_report import judge_margins, read_held_out
from tureen_train.rewards.run import train_reward


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RewardRun]:
    """Two runs that differ in their constraint."""
    runs = []
    for name, loss in (("free", {}), ("held", {"constraint": {"prior": "length_ratio", "beta1": 2}})):
        folder = tmp_path_factory.mktemp(name)
        runs.append(reward_run(base, folder, name=name, loss=loss, data={"train": [{"path": str(rated(folder))}]}))
        train_reward(runs[-1])
    return runs


def rated(folder: Path) -> Path:
    """Pairs with ratings, the same for every folder."""
    path = folder / "rated.jsonl"
    rows = [
        {
            "prompt": f"prompt {n}",
            "chosen": f"the quick brown fox jumps {n}",
            "rejected": "why do leaves fall " * (1 + n % 3),
            "chosen_gpt_score": 0.5 + 0.01 * n,
            "rejected_gpt_score": 0.1 + 0.1 * (n % 3),
        }
        for n in range(24)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_margins_are_those_of_the_runs_own_held_out_pairs(trained: list[RewardRun]) -> None:
    for run in trained:
        folder = Path(run.output)
        found = judge_margins(folder, read_held_out(folder))
        metrics = json.loads((folder / "metrics.json").read_text())["heldout"]
        assert len(found.margins.gaps) == metrics["pairs"]
        assert found.margins.gaps.mean() == pytest.approx(metrics["margin"], abs=1e-4)
        if found.margins.caps is not None:
            assert found.margins.caps.mean() == pytest.approx(metrics["cap"], rel=1e-5)
            assert np.mean(found.margins.gaps > found.margins.caps) == pytest.approx(metrics["over_cap"])
    assert found.margins.caps is not None


def test_the_command_puts_runs_side_by_side(trained: list[RewardRun], bert: Path, tmp_path: Path) -> None:
    folders = [run.output for run in trained]
    outcome = CliRunner().invoke(
        app, ["margins", *folders, "--rating", "gpt_score", "--encoder", str(bert), "--out", str(tmp_path)]
    )
    assert outcome.exit_code == 0, outcome.output
    document = json.loads((tmp_path / "margins.json").read_text())
    assert list(document["models"]) == ["free", "held"]
    held = document["models"]["held"]
    assert held.keys() >= {"accuracy", "margin", "cap", "over_cap", "gap_by_length_ratio", "gap_by_cosine", "spearman"}
    assert held["gap_kendall"]["n"] == held["margin"]["n"]
    assert document["differences"]["held"].keys() == {"spearman", "kendall", "gap_spearman", "gap_kendall"}
    written = {path.name for path in tmp_path.iterdir()}
    assert {"report.md", "report.html", "2-pairs.csv", "2-margins.png", "1-length_ratio.png", "2-cosine.png"} <= written
    assert "the constraint length\\_ratio: beta1 2.0" in (tmp_path / "report.md").read_text()


def test_the_command_reads_a_file_with_an_artifact_alone(trained: list[RewardRun], tmp_path: Path) -> None:
    artifact = Path(trained[1].output) / "artifact"
    data = rated(tmp_path)
    outcome = CliRunner().invoke(app, ["margins", str(artifact), "--data", str(data), "--out", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    with (tmp_path / "out" / "pairs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 24


def test_what_cannot_be_compared_is_told(trained: list[RewardRun], tmp_path: Path, base: Path) -> None:
    data = tmp_path / "tied.jsonl"
    data.write_text(json.dumps({"text": ["\n\nHuman: a\n\nAssistant: b"] * 2, "score": [1, 1]}))
    outcome = CliRunner().invoke(app, ["margins", trained[0].output, "--data", str(data), "--out", str(tmp_path / "o")])
    assert outcome.exit_code == 1
    assert "the records have no comparable pair" in outcome.output
    none = reward_run(base, tmp_path, data={"holdout": 0}, optimisation={"max_steps": 2})
    train_reward(none)
    with pytest.raises(RecipeError, match="holds no records out: name a file with --data"):
        read_held_out(Path(none.output))
