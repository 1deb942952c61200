"""Side by side: differences by hand and by simulation, and what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from train.test_evaluation_evaluate import DATA, Longest, rewardbench

from tureen.records.schema import BadFile, BadOption
from tureen_train.evaluation.comparison_report import compare_folders, measure_difference
from tureen_train.evaluation.evaluate import evaluate_model, load_items
from tureen_train.evaluation.results import AnsweredItem, Evaluation


def row(name: str, credit: float | None, pairs: int = 1, digest: str = "d") -> AnsweredItem:
    return AnsweredItem(
        name, digest, "", "f", [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [False, False], [1, 1], credit, pairs, {}
    )


def of(*rows: AnsweredItem, bench: str = "pairs") -> Evaluation:
    return Evaluation(Path("x"), bench, {"name": "x"}, {}, {}, {}, [], rows)


def test_a_difference_is_of_the_shared_items_weighed_by_their_pairs() -> None:
    first = of(row("1", 1.0, 1), row("2", 0.0, 3), row("3", 1.0), row("4", None, 0))
    second = of(row("2", 1.0, 3), row("1", 0.0, 1), row("4", None, 0), row("3", 0.0, digest="other"))
    found = measure_difference(first, second)
    assert found.value == pytest.approx((-1 + 3) / 4)
    assert found.n == 2
    items = [of(*each.answered, bench="rewardbench2") for each in (first, second)]
    assert measure_difference(*items).value == 0


def test_pairing_narrows_the_interval_of_models_that_agree() -> None:
    """500 items on which the second is right where the first is, and on 20 more."""
    rng = np.random.default_rng(0)
    right = rng.random(500) < 0.6
    better = right.copy()
    better[np.flatnonzero(~right)[:20]] = True
    first, second = (of(*[row(str(n), float(each)) for n, each in enumerate(found)]) for found in (right, better))
    found = measure_difference(first, second)
    assert found.value == pytest.approx(20 / 500)
    assert 0.02 < found.low < found.value < found.high < 0.06  # two independent shares would give ±6 points


def test_evaluations_are_compared_and_agree_with_themselves(tmp_path: Path) -> None:
    loaded = load_items("rewardbench", [rewardbench(tmp_path)])
    for name, sign in (("one", 1.0), ("two", -1.0), ("three", 2.0)):
        evaluate_model(Longest(name, sign), loaded, "rewardbench", tmp_path / name)
    page = compare_folders([tmp_path / name for name in ("one", "two", "three")], tmp_path / "out").read_text()
    table = {
        cells[1]: cells[2:-1]
        for cells in (list(map(str.strip, line.split("|"))) for line in page.splitlines())
        if len(cells) > 3
    }
    assert table["two"][2] == table["three"][2] == "18"
    assert table["three"][:2] == ["+0.0 points", "+0.0 to +0.0"]
    assert table["one – three"][0].startswith("100.0 % ")
    assert float(table["one – two"][2]) == pytest.approx(-1)
    assert float(table["one – three"][3]) == pytest.approx(1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.md", "report.html", "section.png", "subset.png", "length.png", "agreement.png",
    }  # fmt: skip


def test_evaluations_without_a_common_item_are_told_so(tmp_path: Path) -> None:
    for name in ("hh.jsonl", "deepspeed_chat.parquet"):
        evaluate_model(Longest(), load_items("pairs", [DATA / name]), "pairs", tmp_path / name)
    page = compare_folders([tmp_path / "hh.jsonl", tmp_path / "deepspeed_chat.parquet"], tmp_path / "out").read_text()
    assert "The models have no item in common." in page
    assert "longest (hh.jsonl)" in page.replace("\\", "")


def test_runs_are_compared_by_figures_curves_and_recipes(tmp_path: Path) -> None:
    for name, rate in (("slow", 1e-5), ("fast", 1e-3)):
        folder = tmp_path / name
        folder.mkdir()
        recipe = {"name": "x", "optimisation": {"learning_rate": rate, "epochs": 1}}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        history = [{"loss": 0.7 - 100 * rate * step, "step": step} for step in (1, 2)]
        history += [
            {"eval_heldout_accuracy": 0.5 + 100 * rate, "eval_heldout_loss": 0.1, "step": step} for step in (1, 2)
        ]
        (folder / "history.jsonl").write_text("\n".join(map(json.dumps, history)))
        (folder / "metrics.json").write_text(json.dumps({"heldout": {"accuracy": 0.5 + 100 * rate, "pairs": 9}}))
    page = compare_folders([tmp_path / "slow", tmp_path / "fast"], tmp_path / "out").read_text().replace("\\", "")
    assert "| heldout accuracy | 0.501 | 0.6 (+0.099) |" in page
    assert "| optimisation.learning_rate | 1e-05 | 0.001 |" in page
    assert "optimisation.epochs" not in page
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"loss.png", "accuracy-heldout.png"}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    evaluate_model(Longest(), load_items("pairs", [DATA / "hh.jsonl"]), "pairs", tmp_path / "pairs")
    evaluate_model(Longest(), load_items("rewardbench", [rewardbench(tmp_path)]), "rewardbench", tmp_path / "bench")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(BadOption, match="two folders or more"):
        compare_folders([tmp_path / "pairs"], tmp_path / "out")
    with pytest.raises(BadOption, match="evaluations are on pairs and rewardbench"):
        compare_folders([tmp_path / "pairs", tmp_path / "bench"], tmp_path / "out")
    with pytest.raises(BadOption, match="run is not an evaluation, but other folders are"):
        compare_folders([tmp_path / "pairs", tmp_path / "run"], tmp_path / "out")
    with pytest.raises(BadFile, match="neither an evaluation"):
        compare_folders([tmp_path / "run", tmp_path], tmp_path / "out")
