"""From items to a folder: what stands in results, scores and pages, and that reading them gives the same again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tureen.records.schema import BadFile, BadOption
from tureen_core.calibration import Calibration
from tureen_train.evaluation.evaluate import BENCHES, evaluate_model, load_items
from tureen_train.evaluation.evaluation_page import format_figure, format_interval, format_number
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.objectives import ObjectiveChoice, ScoredItem
from tureen_train.evaluation.results import read_results
from tureen_train.measures.intervals import Figure
from tureen_train.networks.reward_reader import Done

DATA = Path(__file__).parent / "data"


@dataclass
class Longest:
    """Rewards an answer by its characters, as a bad reward model does."""

    name: str = "longest"
    sign: float = 0.25
    cut: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    trained_on: frozenset[str] = frozenset()
    compares: bool = False
    scale: Calibration | None = Calibration(mean=1.0, std=2.0, temperature=5.0)

    def __post_init__(self) -> None:
        self.choice = ObjectiveChoice.of({self.name: self.scale}, None, None, "it")
        self.about = {"name": self.name, "read": "here", "max_length": 9, **self.choice.describe()}

    def score(self, items: Sequence[Item], done: Done) -> list[ScoredItem]:
        done(sum(len(item.answers) for item in items))
        raws = [[{self.name: self.sign * length} for length in item.lengths] for item in items]
        return [self.choice.score_item(raw, [self.cut] * len(raw)) for raw in raws]


def rewardbench(folder: Path) -> Path:
    rows = [
        {"prompt": f"q{n}", "chosen": "x" * (n % 5 + 2), "rejected": "xxx", "subset": subset, "id": n}
        for subset in ("math-prm", "hep-go", "donotanswer")
        for n in range(6)
    ]
    (folder / "filtered.json").write_text(json.dumps(rows))
    return folder / "filtered.json"


def rewardbench2(folder: Path) -> Path:
    rows = [
        {"prompt": f"q{n}", "chosen": ["x" * n], "rejected": ["xx", "xxx", "xxxx"], "subset": "Math", "id": str(n)}
        for n in range(1, 7)
    ]
    right = {"ref": ["xxx"], "tied": ["xxx", "xxxx"]}
    rows += [
        {"prompt": "q", "chosen": right[kind], "rejected": ["x"], "subset": "Ties", "id": f"{kind}:{n}"}
        for n in range(3)
        for kind in right
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "test.jsonl"


def files(bench: str, folder: Path) -> list[Path]:
    if bench == "pairs":
        return [DATA / "hh.jsonl", DATA / "deepspeed_chat.parquet"]
    return [rewardbench(folder) if bench == "rewardbench" else rewardbench2(folder)]


@pytest.mark.parametrize("bench", BENCHES)
def test_a_folder_holds_results_scores_and_pages(bench: str, tmp_path: Path) -> None:
    loaded = load_items(bench, files(bench, tmp_path))
    seen: list[int] = []
    found = evaluate_model(Longest(), loaded, bench, tmp_path / "out", seen.append)
    assert sum(seen) == sum(len(item.answers) for item in loaded.items)
    again = read_results(tmp_path / "out")
    assert {name: repr(figure) for name, figure in again.figures.items()} == {
        name: repr(figure) for name, figure in found.figures.items()
    }
    assert repr(again.tables) == repr({title: dict(rows) for title, rows in found.tables.items()})
    assert again.answered == found.answered
    assert again.gaps() == found.gaps()
    assert (again.bench, again.name, again.notes) == (bench, "longest", found.notes)
    page = (tmp_path / "out" / "report.md").read_text()
    for name in (tmp_path / "out").glob("*.png"):
        assert f"]({name.name})" in page
    assert {"margins.png", "reliability.png", "length.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert format_figure("accuracy", found.figures["accuracy"]) in page
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("data:image/png") == len(list((tmp_path / "out").glob("*.png")))


def test_results_tell_every_figure_with_its_interval_and_count(tmp_path: Path) -> None:
    evaluate_model(Longest(), load_items("rewardbench", [rewardbench(tmp_path)]), "rewardbench", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["kind"] == "evaluation"
    assert document["figures"]["score"]["n"] == 18
    for figure in document["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    sections = document["tables"]["section"]
    assert set(sections) == {"Reasoning", "Safety"}
    assert any(note.startswith("no subset of Chat") for note in document["notes"])
    assert document["data"]["items"] == 18
    assert document["data"]["files"]["filtered.json"]["kept"] == 18
    assert document["model"]["calibration"]["longest"]["temperature"] == 5


def test_a_page_says_that_a_reward_has_no_calibration(tmp_path: Path) -> None:
    known = "with the artifact's temperature"
    for name, model in (("scaled", Longest()), ("bare", Longest(scale=None))):
        evaluate_model(model, load_items("pairs", files("pairs", tmp_path)), "pairs", tmp_path / name)
        page = (tmp_path / name / "report.md").read_text()
        document = json.loads((tmp_path / name / "results.json").read_text())
        if name == "scaled":
            assert (known in page, "has no calibration" in page) == (True, False)
            continue
        assert (known in page, "The reward has no calibration: it is served raw" in page) == (False, True)
        assert "none: the reward has no calibration" in page
        assert document["model"]["calibration"] == {"longest": None}
        figures = document["figures"]
        assert [figures[f"{key}_scaled"] for key in ("ece", "ace")] == [figures[key] for key in ("ece", "ace")]


def test_every_item_can_be_analysed_again(tmp_path: Path) -> None:
    found = evaluate_model(Longest(), load_items("pairs", files("pairs", tmp_path)), "pairs", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == found.data["items"]
    for line in lines:
        assert line["rewards"] == [0.25 * length for length in line["lengths"]]
        assert line["logits"] == pytest.approx([reward / 5 for reward in line["rewards"]])
        if line["pairs"] == 1:
            better, worse = line["rewards"]
            assert line["credit"] == (1.0 if better > worse else 0.5 if better == worse else 0.0)
        else:
            assert line["credit"] is None


def test_a_model_that_only_measures_length_is_shown_as_such(tmp_path: Path) -> None:
    found = evaluate_model(Longest(), load_items("pairs", files("pairs", tmp_path)), "pairs", tmp_path / "out")
    assert found.figures["length_correlation"].value > 0.8
    assert found.tables["length"]["better answer longer"]["accuracy"].value == 1
    assert found.tables["length"]["better answer shorter"]["accuracy"].value == 0
    assert set(found.tables["file"]) == {"hh.jsonl", "deepspeed_chat.parquet"}


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    loaded = load_items("pairs", [DATA / "hh.jsonl"]).limited(3)
    found = evaluate_model(Longest(sign=0.0, cut=True), loaded, "pairs", tmp_path / "out")
    told = " / ".join(found.notes)
    assert "3 of 4 items" in told
    assert "texts were cut to 9 tokens" in told
    assert "all rewards are equal" in told
    assert "all rewards are equal" in (tmp_path / "out" / "report.md").read_text()


def test_an_unknown_benchmark_or_a_form_where_there_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="unknown benchmark 'mmlu'; use one of pairs, rewardbench, rewardbench2"):
        load_items("mmlu", [tmp_path])
    with pytest.raises(BadOption, match="--form and --domain are for --bench pairs"):
        load_items("rewardbench", [tmp_path], form="hh")


def test_a_folder_that_is_no_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"is not the folder of an evaluation: .*results\.json"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"kind": "other"}')
    with pytest.raises(BadFile, match="is not the folder of an evaluation"):
        read_results(tmp_path)


def test_numbers_are_told_as_a_reader_wants_them() -> None:
    assert format_number("accuracy", 0.6064) == "60.6 %"
    assert format_number("margin", -0.40235) == "-0.402"
    assert format_number("margin", float("nan")) == format_interval("ece", Figure(1.0)) == "–"
    assert format_interval("accuracy", Figure(0.5, 0.4, 0.61)) == "40.0 to 61.0 %"
    assert format_interval("ece", Figure(0.5, 0.4, 0.61)) == "0.400 to 0.610"


def test_a_file_that_was_trained_on_is_told(tmp_path: Path) -> None:
    names = ("old.jsonl", "new.jsonl")
    for place, name in enumerate(names):
        row = {"prompt": f"q{place}", "chosen": "long", "rejected": "no"}
        (tmp_path / name).write_text(json.dumps(row))
    loaded = load_items("pairs", [tmp_path / name for name in names])
    scorer = Longest(trained_on=frozenset({loaded.files["old.jsonl"]["sha256"], "0" * 64}))
    made = evaluate_model(scorer, loaded, "pairs", tmp_path / "out")
    told = [note for note in made.notes if "trained" in note]
    assert told == ["old.jsonl: the model was trained on this file, so the figures say nothing about new data"]
    assert told[0] in (tmp_path / "out" / "report.md").read_text()
