"""Judged pairs in the forms of training: each is read again by our own readers with the same labels."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.reading import Reading
from tureen.records.schema import BadRecord, Record
from tureen_train.judge.label_files import LabelForm, find_sentence, write_labels
from tureen_train.judge.pairs import LabelledPairs

SHARES = (1.0, 0.25, 0.5)


def labelled(prompt: str = "Explain tides.", **keys: Any) -> LabelledPairs:
    records = [
        Record((user_turn(f"{prompt} {number}"),), ((assistant_turn("a"),), (assistant_turn("b"),)), (share, 1 - share))
        for number, share in enumerate(SHARES)
    ]
    return LabelledPairs(records, Counter(), 0)


def write(path: Path, form: LabelForm, pairs: LabelledPairs | None = None, pole: str = "P2A") -> Any:
    write_labels(pairs or labelled(), path, form, pole, "m, pref2A")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("form", "scores"),
    [
        ("trl", [(1.0, 0.0), (0.75, 0.25), (0.5, 0.5)]),
        ("text-score", [(1.0, 0.0), (0.75, 0.25), (0.5, 0.5)]),
        ("alpaca-farm", [(1.0, 0.0), (0.25, 0.75), (0.5, 0.5)]),
        ("rlphf", [(1.0, 0.0), (1.0, 0.0)]),  # it has no place for shares, and no ties
    ],
)
def test_each_form_is_read_again(form: LabelForm, scores: list[tuple[float, float]], tmp_path: Path) -> None:
    write(tmp_path / "out.json", form)
    records = list(Reading(tmp_path / "out.json", strict=form != "alpaca-farm"))
    assert [each.scores for each in records] == scores
    assert records[1].answers[0][0]["content"] == ("a" if form == "alpaca-farm" else "b")


def test_an_annotation_keeps_the_order_of_its_file_as_alpaca_farm_does(tmp_path: Path) -> None:
    rows = write(tmp_path / "out.json", "alpaca-farm")
    assert [row["preference"] for row in rows] == [1, 1.75, 1.5]
    assert {row["annotator"] for row in rows} == {"m, pref2A"}
    assert rows[0] | {"instruction": "", "annotator": ""} == {
        "instruction": "",
        "input": "",
        "output_1": "a",
        "output_2": "b",
        "annotator": "",
        "preference": 1,
    }


def test_rlphfs_prompt_has_the_sentence_of_the_preference_once(tmp_path: Path) -> None:
    sentence = find_sentence("P2A")
    assert sentence.startswith("Generate a response that is concise")
    rows = write(tmp_path / "out.json", "rlphf")
    assert [row["user_input"] for row in rows] == [f"Explain tides. {number} {sentence}" for number in (0, 1)]
    assert [(row["completion_a"], row["completion_b"]) for row in rows] == [("a", "b"), ("b", "a")]
    spread = sentence.replace(" ", "\n")
    again = write(tmp_path / "out.json", "rlphf", labelled(f"Why? {spread}"))
    assert again[0]["user_input"] == f"Why? {spread} 0"
    bare = write(tmp_path / "out.json", "rlphf", pole="")
    assert bare[0]["user_input"] == "Explain tides. 0"


@pytest.mark.parametrize("form", ["rlphf", "alpaca-farm"])
def test_what_a_form_has_no_place_for_is_refused(form: LabelForm, tmp_path: Path) -> None:
    one, other = (assistant_turn("a"),), (assistant_turn("b"),)
    turns = Record((user_turn("hi"), assistant_turn("yes"), user_turn("why")), (one, other), (1, 0), "f:1")
    talk = Record((user_turn("hi"),), ((*one, user_turn("and"), *one), other), (1, 0), "f:2")
    tools = Record((user_turn("hi"),), (one, other), (1, 0), "f:3", tools=({"function": {"name": "f"}},))
    for record in (turns, talk, tools):
        with pytest.raises(BadRecord, match=f"{record.source}: .* {form} .* --as trl"):
            write_labels(LabelledPairs([record], Counter(), 0), tmp_path / "out.json", form, "", "m")
        assert not (tmp_path / "out.json").exists()
