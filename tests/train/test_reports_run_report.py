"""The page of a training run: of a real tiny one, of one without evaluations, of one that goes on, and of none."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_runs import expert_run, reward_run

from tureen.records.schema import BadFile
from tureen_train.policies.run import train_policy
from tureen_train.reports.run_folder import flatten_keys, format_cell, read_run
from tureen_train.reports.run_report import write_run_report
from tureen_train.rewards.run import train_reward


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = reward_run(base, tmp_path_factory.mktemp("reward"), watch={"eval_every": 2, "log_every": 1})
    train_reward(run)
    return Path(run.output)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_told_from_its_folder(folder: Path) -> None:
    path = write_run_report(folder)
    page = path.read_text()
    metrics = json.loads((folder / "metrics.json").read_text())["heldout"]
    assert page.startswith("# Training run foxes\n")
    assert "A reward model for foxes on" in page
    assert "4 optimiser steps in" in page
    assert f"| accuracy | {metrics['accuracy']:.4g} |" in page
    assert f"| pairs | {metrics['pairs']} |" in page
    for picture in ("loss", "accuracy", "reliability"):
        assert f"]({picture}.png)" in page
    assert re.search(r"\| records\.json|records\.json \|", page.replace("\\", ""))
    assert "differ from the trained model's numbers by at most" in page
    code = page.split("~~~~\n")[1]
    assert yaml.safe_load(code) == yaml.safe_load((folder / "recipe.yaml").read_text())
    assert "torch" in page
    assert (folder / "report.html").read_text().count("data:image/png") == len(list(folder.glob("*.png")))


def test_the_columns_of_the_data_are_told(copy: Path) -> None:
    (about,) = json.loads((copy / "data.json").read_text()).values()
    columns = {"system": {"rendered into the text": 3}, "grade_by": {"not understood, kept beside the record": 2}}
    told = {**about, "tied": 5, "unjudged": 7, "columns": columns}
    (copy / "data.json").write_text(json.dumps({"mine.csv": told}))
    page = write_run_report(copy).read_text().replace("\\", "")
    assert re.search(r"\| mine\.csv \| \d+ \| \d+ \| 5 \| 7 \| text-score \|", page)
    assert "| mine.csv | system | rendered into the text | 3 |" in page
    assert "| mine.csv | grade_by | not understood, kept beside the record | 2 |" in page


def test_an_experts_run_is_told_too(base: Path, tmp_path: Path) -> None:
    run = expert_run(base, tmp_path, optimisation={"max_steps": 2})
    train_policy(run)
    page = write_run_report(Path(run.output)).read_text()
    assert "An expert for foxes on" in page
    assert "loss.png" in page


def test_a_run_that_goes_on_is_told_as_far_as_it_is(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name not in ("recipe.yaml", "history.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    lines = [line for line in (copy / "history.jsonl").read_text().splitlines() if "train_runtime" not in line]
    (copy / "history.jsonl").write_text("\n".join(lines) + "\n")
    page = write_run_report(copy).read_text()
    assert "The run has not finished: 4 optimiser steps so far." in page
    assert "There is no evaluation: the recipe holds no data out" in page
    for heading in ("Curves", "Data", "Proof", "Libraries"):
        assert f"## {heading}" not in page


def test_several_objectives_have_their_own_scale(copy: Path) -> None:
    scale = {"mean": 1.5, "std": 2.0, "temperature": 0.5}
    rows = [{"name": "helpful", "calibration": scale}, {"name": "honest", "column": 1, "calibration": scale}]
    (copy / "objectives.json").write_text(json.dumps(rows))
    page = write_run_report(copy).read_text()
    assert "| helpful | 1.5 | 2 | 0.5 |" in page
    assert "| honest | 1.5 | 2 | 0.5 |" in page


def test_ratings_are_explained_and_one_that_is_not_learnt_is_told(copy: Path) -> None:
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    (copy / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "loss": {"method": "attributes"}}))
    scale = {"mean": 0.0, "std": 1.0, "temperature": 1.0}
    rows = [{"name": name, "calibration": scale} for name in ("quality", "brevity")]
    (copy / "objectives.json").write_text(json.dumps(rows))
    figures = {"r2": 0.1, "quality_r2": 0.3, "brevity_r2": -0.1, "flat_r2": None, "quality_rmse": 0.2}
    (copy / "metrics.json").write_text(json.dumps({"heldout": figures}))
    page = write_run_report(copy).read_text().replace("\\", "")
    assert "- r2: the explained share of the ratings' variance" in page
    assert "- rmse: the root of the mean squared error" in page
    assert "**heldout**: brevity: predicted no better than by always saying the mean rating." in page
    assert "Mean and deviation are those of the training ratings" in page
    assert (
        "quality, brevity: no held-out record has two answers with different ratings, so the temperature is 1" in page
    )
    (copy / "metrics.json").write_text(json.dumps({"heldout": {"quality_accuracy": 0.7}}))
    page = write_run_report(copy).read_text()
    assert "Temperatures are fitted on the rated pairs of answers of the evaluation files: heldout." in page
    assert "brevity: no held-out record has two answers" in page


def test_nested_figures_are_told_by_their_dotted_names(copy: Path) -> None:
    metrics: dict[str, Any] = {"heldout": {"accuracy": 0.5, "by": {"helpful": {"r": None}, "says": "words"}}}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    page = write_run_report(copy).read_text().replace("\\", "")
    assert "| by.helpful.r | – |" in page
    assert "words" not in page


def test_a_folder_that_is_no_runs_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="neither recipe.yaml nor history.jsonl"):
        write_run_report(tmp_path)
    (copy / "metrics.json").write_text("{")
    with pytest.raises(BadFile, match="a file of the run is damaged"):
        write_run_report(copy)


def test_history_becomes_curves(folder: Path) -> None:
    run = read_run(folder)
    assert [step for step, _ in run.losses()] == [1, 2, 3, 4]
    accuracy = run.accuracies()["heldout"]
    assert {step for step, _ in accuracy} == {0, 2, 4}
    assert all(0 <= value <= 1 for _, value in accuracy)


def test_documents_are_laid_flat() -> None:
    found = dict(flatten_keys({"a": {"b": [1, 2], "c": [{"d": None}]}, "e": True}))
    assert found == {"a.b": [1, 2], "a.c.0.d": None, "e": True}
    assert [format_cell(value) for value in (None, True, 1234, 0.123456, "x", [1, 2])] == [
        "–",
        "True",
        "1,234",
        "0.1235",
        "x",
        "1, 2",
    ]


def test_the_report_says_which_files_set_the_scale_and_what_is_not_calibrated(copy: Path) -> None:
    assert "are those of the evaluation files: heldout." in write_run_report(copy).read_text()
    account = json.loads((copy / "account.json").read_text())
    account["calibration"] = {"files": ["one", "two"], "worse_than_chance": ["foxes"]}
    (copy / "account.json").write_text(json.dumps(account))
    page = write_run_report(copy).read_text()
    assert "are those of the evaluation files: one, two." in page
    assert "files: one, two. foxes is not calibrated: its temperature ended at the bound of 100" in page
