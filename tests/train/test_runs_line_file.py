"""A file that grows line by line: what a kill leaves of it is read, and only a half line is lost."""

from pathlib import Path

import pytest

from tureen_train.runs.line_file import LineFile

ROWS = [{"key": "a", "text": "one"}, {"key": "b", "text": "two\u2028\nlines ü"}, {"key": "c"}]


def test_a_file_that_is_cut_at_any_byte_goes_on_with_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    file = LineFile(path)
    assert file.rows == []
    file.append(ROWS[0])
    file.append(*ROWS[1:])
    whole = path.read_bytes()
    assert whole.count(b"\n") == 3
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        again = LineFile(path)
        kept = whole[:size].count(b"\n")
        assert again.rows == ROWS[:kept]
        again.append(*ROWS[kept:])
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": 1}\n{"key"\n{}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2 is damaged: .*; remove the line, or the file"):
        LineFile(path)


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="JSON compliant"):
        file.append({"reward": float("nan")})
    assert LineFile(file.path).rows == []
