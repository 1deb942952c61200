"""Files of items, read with the place of each, and their labels, written run by run."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tureen.chunks import item_index
from tureen.client import Client
from tureen.errors import TureenError, Unprocessable
from tureen.wire import Label, RankingLabel, TrlLabel

Labelled = Label | TrlLabel | RankingLabel


@dataclass(frozen=True)
class Row:
    """An item and where it stands: ``in.jsonl, line 7`` or ``in.json, item 7``, counted from 1."""

    place: str
    item: Any


@dataclass
class Tally:
    """What became of a file's items.

    Attributes:
        labelled: lines written.
        ties: how many of them are ties.
        left_out: items that could not be labelled.
        prompt_tokens: tokens read.
        fingerprint: the reward models that labelled all of them.
    """

    labelled: int = 0
    ties: int = 0
    left_out: int = 0
    prompt_tokens: int = 0
    fingerprint: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> list[Row]:
    """The items of a JSON file (a list of them, or a body with ``items``) or of JSON Lines.

    Raises:
        Unprocessable: it cannot be read; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Unprocessable(f"{path} is not UTF-8: byte {error.start} cannot be read") from None
    rows = _whole(path, text) if path.suffix == ".json" else _lines(path, text)
    if not rows:
        raise Unprocessable(f"{path} holds no items")
    return rows


def _whole(path: Path, text: str) -> list[Row]:
    document = _parsed(str(path), text)
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise Unprocessable(f"{path} holds no list of items: name it .jsonl if each line is one")
    return [Row(f"{path}, item {number}", item) for number, item in enumerate(items, 1)]


def _lines(path: Path, text: str) -> list[Row]:
    # Not splitlines(): JSON allows U+2028 and its like within a line.
    lines = ((f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1))
    return [Row(place, _parsed(place, line)) for place, line in lines if line.strip()]


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Unprocessable(f"{place}: this is not JSON: {error}") from None


@contextmanager
def placing(rows: Sequence[Row]) -> Iterator[None]:
    """Tells of an error by the row's place instead of the item's index."""
    try:
        yield
    except TureenError as error:
        index = item_index(error.param)
        if index is None:
            raise
        problem = error.message.removeprefix(f"items[{index}]").lstrip(".: ")
        raise type(error)(
            f"{rows[index].place}: {problem}", param=error.param, code=error.code, request_id=error.request_id
        ) from error


def label(
    client: Client, rows: Sequence[Row], target: Path, run: int, options: dict[str, Any], seen: Callable[[int], None]
) -> Tally:
    """Write a line for each row that can be labelled, in their order.

    Args:
        client: asks the server.
        rows: what to label.
        target: the file to write. Until all is done it is called ``.part``.
        run: rows in one request, and one step of the progress.
        options: of ``Client.preferences``.
        seen: told after each run how many rows it had.

    Raises:
        TureenError: a row cannot be labelled and is not to be left out; the message names its place.
    """
    tally = Tally()
    part = target.with_name(target.name + ".part")
    with part.open("w", encoding="utf-8") as lines:
        for start in range(0, len(rows), run):
            some = rows[start : start + run]
            for each in _labels(client, some, options, tally):
                line = each.model_copy(update={"index": each.index + start}).model_dump_json(exclude_none=True)
                lines.write(line + "\n")
            seen(len(some))
    part.replace(target)
    return tally


def _labels(client: Client, rows: Sequence[Row], options: dict[str, Any], tally: Tally) -> Iterator[Labelled]:
    with placing(rows):
        # The models that labelled the first run must label all the others.
        reply = client.preferences([row.item for row in rows], fingerprint=tally.fingerprint or None, **options)
    tally.fingerprint = reply.fingerprint
    tally.prompt_tokens += reply.usage.prompt_tokens
    for label in reply.data:
        if label.error:
            tally.left_out += 1
            continue
        tally.labelled += 1
        tally.ties += bool(getattr(label, "tie", False))
        yield label
