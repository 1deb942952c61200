"""Tables of text: separators, Excel's line, quotes inside cells, and quotes that do not end."""

import csv
import gzip
import io
from pathlib import Path

import pytest

from tureen.records.containers import read_rows
from tureen.records.schema import BadFile, BadRecord
from tureen.records.tables import is_table

ROWS = [["prompt", "chosen", "rejected"], ["Why, though?", 'He said "no"; twice', "a|b"], ["q", "x\ny", ""]]


def written(separator: str, rows: list[list[str]] = ROWS) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows(rows)
    return stream.getvalue()


def saved(tmp_path: Path, text: str, name: str) -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def found(path: Path) -> list[object]:
    return [dict(item) if isinstance(item, dict) else item for _, item in read_rows(path)]


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.psv", "in.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["", "sep=", "\ufeff", "\ufeffSEP="], ids=["plain", "excel", "bom", "bom-excel"])
def test_a_table_is_read_whatever_its_separator(tmp_path: Path, name: str, separator: str, head: str) -> None:
    head = f"{head}{separator}\r\n" if head.lower().endswith("sep=") else head
    path = saved(tmp_path, head + written(separator), name)
    assert found(path) == [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]


def test_excels_line_wins_over_the_names(tmp_path: Path) -> None:
    path = saved(tmp_path, "sep=;\nprompt, or question;chosen, or best\nq;a, b\n", "in.csv")
    assert list(read_rows(path)) == [(f"{path}:3", {"prompt, or question": "q", "chosen, or best": "a, b"})]


@pytest.mark.parametrize("name", ["in.tsv", "in.csv"])
def test_a_quote_inside_a_cell_is_text(tmp_path: Path, name: str) -> None:
    separator = "\t" if name == "in.tsv" else ","
    lines = [["prompt", "chosen"], ['a 5" pipe', 'say "no"'], ["q", '6"']]
    path = saved(tmp_path, "\n".join(separator.join(line) for line in lines), name)
    assert found(path) == [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('p\tc\nq\t"No" she said\n', r"in\.tsv:2: not a table: .* a quote inside it is doubled"),
        ('p\tc\nq\t"No\nr\ts\n', r"in\.tsv:3: not a table: .* write JSON Lines"),
        ('p\tc\n1\t2\nq\t"No\nr\ts"\n', r"in\.tsv:3: a cell begins with a quote that ends 1 lines below"),
        ('p\tc\nq\t"No\nr\ts\nt\tu"\n', r"in\.tsv:2: a cell begins with a quote that ends 2 lines below"),
        ("p\tp\nq\tr\n", "the first line must name each column once"),
    ],
)
def test_a_quote_that_joins_lines_or_does_not_end_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        found(saved(tmp_path, text, "in.tsv"))


def test_a_quoted_cell_over_several_lines_is_one_cell(tmp_path: Path) -> None:
    text = 'p\tc\n"a\nb"\t"if x:\n\treturn 1"\nq\t"1\n2"\n'
    assert found(saved(tmp_path, text, "in.tsv")) == [
        {"p": "a\nb", "c": "if x:\n\treturn 1"},
        {"p": "q", "c": "1\n2"},
    ]


def test_a_row_of_another_length_spoils_only_itself(tmp_path: Path) -> None:
    first, bad, last = found(saved(tmp_path, "p|c\n1|2\n3|4|5\n6|7\n", "in.csv"))
    assert (first, last) == ({"p": "1", "c": "2"}, {"p": "6", "c": "7"})
    assert isinstance(bad, BadRecord)
    assert bad.detail == "the table has 2 columns and this row 3 cells"


def test_a_table_in_another_encoding_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("p,c\nü,x\n".encode("latin-1"))
    with pytest.raises(BadFile, match="is not UTF-8 at byte 4: save it as UTF-8"):
        found(path)


def test_the_name_says_what_is_a_table() -> None:
    names = ("a.csv", "a.TSV.gz", "a.psv", "a.json", "csv")
    assert [is_table(Path(name)) for name in names] == [True, True, True, False, False]
