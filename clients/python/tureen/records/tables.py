"""Tables of text: CSV, TSV and tables with pipes, plain or as gzip. The first line names the columns."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path

from tureen.records.columns import Cells
from tureen.records.schema import BadFile, BadRecord
from tureen.records.text_files import Row, name_row, open_bytes

csv.field_size_limit(2**31 - 1)
USUAL = {".csv": ",", ".tsv": "\t", ".psv": "|"}  # the separator by the file's suffix
SEPARATORS = (",", ";", "\t", "|")
HEAD = 4096
EXCEL = re.compile(rb'\A"?sep=([^\r\n])"?\r?\n', re.IGNORECASE)  # Excel's line that says the separator
BOM = b"\xef\xbb\xbf"


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table of text."""
    return any(suffix in USUAL for suffix in map(str.lower, path.suffixes))


def read_table(path: Path) -> Iterator[Row]:
    """Read a table of text. All values are texts. A cell that begins with a quote may hold line breaks.

    A quote inside a cell is text. The separator is the one of a line ``sep=;``, as Excel writes it. Without such a
    line it is the one of the file's suffix where the line of names has it, else the most frequent one there.

    Raises:
        BadFile: the names are not unique, the file is not UTF-8, or a quoted cell does not end.
    """
    with open_bytes(path) as stream:
        head = stream.peek(HEAD).removeprefix(BOM)
        if told := EXCEL.match(head):
            stream.readline()
        separator = told[1].decode("latin-1") if told else _find_separator(path, head.lstrip().partition(b"\n")[0])
        with TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            yield from _read_rows(path, text, separator, 1 if told else 0)


def _read_rows(path: Path, text: Iterable[str], separator: str, skipped: int) -> Iterator[Row]:
    lines = _Lines(text)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    try:
        names = next((row for row in rows if any(row)), [])
        if len(set(names)) < len(names) or not all(name.strip() for name in names[1:]):
            raise BadFile(f"{path}: the first line must name each column once, is {names}")
        lines.taken.clear()
        for row in rows:
            place = rows.line_num + skipped
            if separator == "\t" and len(lines.taken) > 1:
                _check_whole(path, place, lines.taken, len(names))
            lines.taken.clear()
            if any(row):
                yield place, _cells(names, row)
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except csv.Error as error:
        where = name_row(path, rows.line_num + skipped)
        advice = "a cell that begins with a quote ends with one, and a quote inside it is doubled"
        raise BadFile(f"{where}: not a table: {error}: {advice}; or write JSON Lines") from error


class _Lines:
    """The lines of a text, one at a time; ``taken`` holds those that were read since it was last cleared."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            self.taken.append(line)
            yield line


def _check_whole(path: Path, place: int, lines: list[str], columns: int) -> None:
    """Refuse a row of several lines each of which has all cells: a bare quote joined them."""
    if columns > 1 and all(line.count("\t") == columns - 1 for line in lines):
        raise BadFile(
            f"{name_row(path, place - len(lines) + 1)}: a cell begins with a quote that ends {len(lines) - 1} lines"
            " below, and each of these lines has all cells: put the cell in quotes and double the quotes inside it,"
            " or write JSON Lines"
        )


def _find_separator(path: Path, names: bytes) -> str:
    usual = next(USUAL[suffix] for suffix in map(str.lower, path.suffixes) if suffix in USUAL)
    if usual != "," and usual.encode() in names:
        return usual
    return max(SEPARATORS, key=lambda each: names.count(each.encode()))


def _cells(names: list[str], row: list[str]) -> object:
    if len(row) != len(names):
        return BadRecord("lengths differ", f"the table has {len(names)} columns and this row {len(row)} cells")
    return Cells((name, cell) for name, cell in zip(names, row, strict=True) if name.strip())
