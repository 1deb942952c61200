"""A person's choices in files: rewards as they are, and pairs of preference data."""

import json
from pathlib import Path
from typing import Any

import pytest

from tureen.choice_files import name_choices_in_errors, read_choices
from tureen.errors import Unprocessable
from tureen.wire import ChoicePair

VECTOR = {"chosen_rewards": {"a": 1, "b": 0.5}, "rejected_rewards": {"a": 0, "b": 2}}
PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rewards_are_taken_as_they_are(tmp_path: Path) -> None:
    found = read_choices(write(tmp_path, VECTOR, {**VECTOR, "note": "late"}))
    assert (found.pairs, found.places) == ([VECTOR, VECTOR], ["choices.jsonl:1", "choices.jsonl:2"])
    assert found.has_rewards


def test_preference_data_gives_its_pairs_and_tells_what_is_left_out(tmp_path: Path) -> None:
    three = {"prompt": "Why?", "answers": ["Because.", "No.", "Hm."], "scores": [3, 1, 2]}
    tie = {"prompt": "Why?", "answers": ["Because.", "No."], "scores": [1, 1]}
    found = read_choices(write(tmp_path, PAIR, three, tie))
    assert [ChoicePair.model_validate(pair).has_rewards for pair in found.pairs] == [False] * 4
    said = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in found.pairs]
    assert said == [("Because.", "No idea."), ("Because.", "No."), ("Because.", "Hm."), ("Hm.", "No.")]
    assert found.notes == ["1 records are left out: are ties"]


def test_columns_may_be_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "Why?", "chosen": "Because.", "rejected": "No."})
    assert len(read_choices(path, renamed={"question": "prompt"}).pairs) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([VECTOR, PAIR], "choices.jsonl:2: it has no maps chosen_rewards and rejected_rewards"),
        ([{**VECTOR, "rejected_rewards": [1, 2]}], "choices.jsonl:1"),
        ([{"prompt": "Why?", "answers": ["a", "b"], "scores": [1, 1]}], "holds no choice .* 1 records are left out"),
        ([{"odd": 1}], "holds no choice"),
    ],
)
def test_a_file_without_choices_is_refused(tmp_path: Path, rows: list[Any], words: str) -> None:
    with pytest.raises(Unprocessable, match=words):
        read_choices(write(tmp_path, *rows))


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises((OSError, Unprocessable), match="absent"):
        read_choices(tmp_path / "absent.jsonl")


def test_an_error_about_a_pair_names_its_place() -> None:
    with pytest.raises(Unprocessable, match="f:7: too long"), name_choices_in_errors(["f:3", "f:7"]):
        raise Unprocessable("too long", param="pairs[1].chosen")
    with pytest.raises(Unprocessable, match="^odd"), name_choices_in_errors(["f:3"]):
        raise Unprocessable("odd", param="rewards")
