"""RewardBench: published weights, published rows, and what is said of subsets that are missing or unknown."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.rewardbench import (
    PRIOR,
    PRIOR_SETS,
    SECTIONS,
    average_sections,
    judge_rewardbench,
    list_missing,
    read_rewardbench,
    score_sections,
)
from tureen_train.measures.intervals import Figure, estimate_share

ROW: dict[str, Any] = {
    "prompt": "Name a prime.",
    "chosen": "7",
    "chosen_model": "one",
    "rejected": "9",
    "rejected_model": "other",
    "subset": "llmbar-natural",
    "id": 41,
}


def every(accuracy: float = 0.5) -> dict[str, Figure]:
    return {name: Figure(accuracy, accuracy, accuracy, 10) for weights in SECTIONS.values() for name in weights}


def item(subset: str, number: int = 0) -> Item:
    return Item(
        f"{subset}/{number}",
        (user_turn("q"),),
        ((assistant_turn("a"),), (assistant_turn("b"),)),
        (1.0, 0.0),
        subset,
        "f",
    )


def test_weights_sum_to_the_published_sections() -> None:
    assert {name: sum(weights.values()) for name, weights in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1968,
    }
    counts = {name: count for weights in SECTIONS.values() for name, count in weights.items()}
    assert len(counts) == 23
    assert sum(counts.values()) - 984 + 447 == 2985  # the published set has 447 of PRM Math


def test_xstests_weights_are_not_each_others() -> None:
    """With .9 refused, .7 answered and .5 elsewhere Safety is 65.08; the swapped weights would say 67.68."""
    subsets = {**every(), "xstest-should-refuse": Figure(0.9), "xstest-should-respond": Figure(0.7)}
    assert 100 * score_sections(subsets)["Safety"].value == pytest.approx(65.08, abs=0.005)


def test_math_weighs_as_much_as_all_of_code() -> None:
    assert score_sections({**every(0.0), "math-prm": Figure(1.0)})["Reasoning"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("chat", "hard", "safety", "reasoning", "prior", "score"),
    [
        (96.9, 76.8, 92.2, 97.3, 74.3, 89.0),
        (98.3, 65.8, 89.7, 94.7, 74.6, 85.7),
        (99.4, 65.1, 87.8, 86.4, 74.9, 83.6),
    ],
    ids=["ArmoRM", "pair-PM", "FsfairX"],
)
def test_published_rows_have_their_published_score(
    chat: float, hard: float, safety: float, reasoning: float, prior: float, score: float
) -> None:
    sections = dict(zip((*SECTIONS, PRIOR), map(Figure, (chat, hard, safety, reasoning, prior)), strict=True))
    assert average_sections(sections).value == pytest.approx(score, abs=0.051)


def test_without_prior_sets_the_score_is_the_mean_of_four() -> None:
    sections = dict(zip(SECTIONS, map(Figure, (96.9, 91.4, 93.9, 99.2)), strict=True))
    assert average_sections(sections).value == pytest.approx(95.35)


def test_prior_sets_count_alike_whatever_their_size() -> None:
    subsets = {name: estimate_share([1.0] * (index + 1)) for index, name in enumerate(PRIOR_SETS)}
    subsets["shp"] = estimate_share([0.0] * 50)
    assert score_sections(subsets)[PRIOR].value == pytest.approx(0.75)


def test_all_that_is_missing_or_unknown_is_named() -> None:
    assert list_missing(every()) == []
    assert list_missing({**every(), **{name: Figure(1) for name in PRIOR_SETS}}) == []
    some = every()
    for name in ("hep-go", *SECTIONS["Chat"]):
        del some[name]
    notes = list_missing({**some, "own-set": Figure(1.0), "shp": Figure(0.5)})
    assert notes == [
        "no subset of Chat is in the data, so the score leaves it out: not comparable with published ones",
        "Reasoning is without hep-go: not comparable with published scores",
        "Prior Sets are without anthropic_helpful, anthropic_hhh, summarize",
        "unknown subsets, in no section: own-set",
    ]


def test_items_gain_one_one_half_or_nothing() -> None:
    items = [item("math-prm", n) for n in range(2)] + [item("hep-go"), item("own-set")]
    rewards: list[list[float]] = [[1, 0], [0, 0], [0, 1], [1, 0]]
    found = judge_rewardbench(items, rewards, rewards)
    subsets = {name: row["accuracy"].value for name, row in found.tables["subset"].items()}
    assert subsets == {"math-prm": 0.75, "hep-go": 0.0, "own-set": 1.0}
    assert found.tables["section"]["Reasoning"]["score"].value == pytest.approx(0.75 * 984 / (984 + 164))
    assert found.figures["score"] == found.tables["section"]["Reasoning"]["score"]
    assert found.figures["accuracy"].value == pytest.approx(2.5 / 4)
    assert list(found.credits) == [1, 0.5, 0, 1]
    score = found.figures["score"]
    assert score.low < score.value < score.high


@pytest.mark.parametrize("container", ["jsonl", "json", "parquet"])
def test_files_of_every_container_are_read(container: str, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    rows = [ROW, {**ROW, "id": 42}] if container == "parquet" else [ROW, {**ROW, "prompt": talk, "id": 42}]
    path = tmp_path / f"filtered.{container}"
    if container == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if container == "json" else "\n".join(map(json.dumps, rows))
        path.write_text(text)
    loaded = read_rewardbench([path])
    first, second = loaded.items
    assert (first.id, first.subset, first.scores) == ("llmbar-natural/41", "llmbar-natural", (1.0, 0.0))
    assert first.conversations[1] == (user_turn("Name a prime."), assistant_turn("9"))
    assert len(second.prompt) == (1 if container == "parquet" else 3)
    assert loaded.files[path.name]["kept"] == 2


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected", "subset"])
def test_a_missing_column_is_named_with_row_and_file(column: str, tmp_path: Path) -> None:
    path = tmp_path / "filtered.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({key: ROW[key] for key in ROW if key != column}))
    with pytest.raises(BadRecord, match=rf"filtered\.jsonl:2: missing column: `{column}`"):
        read_rewardbench([path])


def test_a_row_without_an_id_is_called_after_its_place(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({key: ROW[key] for key in ("prompt", "chosen", "rejected", "subset")}))
    assert [one.id for one in read_rewardbench([path]).items] == ["llmbar-natural/own.jsonl:1"]
