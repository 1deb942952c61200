"""The file of measured answers: what a broken measurement left is kept, and nothing is measured again."""

from pathlib import Path

import pytest

from tureen.records.schema import DataError
from tureen_train.families.answers import AnswerFile, MeasuredAnswer
from tureen_train.families.mixes import Mix, name_mix

MIXES: list[Mix] = [{}, {"a": 1.0}, {"a": 0.5, "b": 0.5}]
PROMPTS = ["x", "y"]


def measure(mix: Mix) -> list[MeasuredAnswer]:
    return [MeasuredAnswer(name_mix(mix), each, f"to {each}\u2028", 3, True, {"a": 0.5}, None) for each in PROMPTS]


def complete(path: Path) -> list[str]:
    """Complete the file. Returns the mixes that had to be measured."""
    asked: list[str] = []

    def watched(mix: Mix) -> list[MeasuredAnswer]:
        asked.append(name_mix(mix))
        return measure(mix)

    AnswerFile(path, PROMPTS).complete(MIXES, watched, lambda _: None)
    return asked


def test_a_file_that_is_cut_anywhere_is_completed_to_the_same_answers(tmp_path: Path) -> None:
    path = tmp_path / "whole.jsonl"
    assert complete(path) == ["base", "a=1", "a=0.5+b=0.5"]
    assert complete(path) == []
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(whole[:length])
        asked = complete(cut)
        kept = whole[:length].count(b"\n") // len(PROMPTS)
        assert asked == ["base", "a=1", "a=0.5+b=0.5"][kept:]
        found = AnswerFile(cut, PROMPTS)
        assert [found.read(mix) for mix in MIXES] == [measure(mix) for mix in MIXES]


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"mix": "base"}\n')
    with pytest.raises(DataError, match="delete the file to measure again"):
        AnswerFile(path, PROMPTS)
