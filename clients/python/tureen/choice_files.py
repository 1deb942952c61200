"""Read a person's choices from a file: rewards of both answers, or preference data in any form."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.records.containers import open_rows
from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import BadRecord, DataError, Record

REWARDS = ("chosen_rewards", "rejected_rewards")
_PAIR = re.compile(r"^pairs\[(\d+)\]")


@dataclass(frozen=True)
class ChoiceFile:
    """The choices of a file.

    Attributes:
        pairs: each as :class:`tureen.wire.ChoicePair` has it.
        places: where each stands, as ``choices.jsonl:7``.
        notes: what was left out, and why.
    """

    pairs: list[dict[str, Any]]
    places: list[str]
    notes: list[str]

    @property
    def has_rewards(self) -> bool:
        """Whether the pairs have rewards, not texts."""
        return REWARDS[0] in self.pairs[0]


def read_choices(path: Path, form: str = "auto", renamed: Mapping[str, str] | None = None) -> ChoiceFile:
    """Read the choices of a file.

    Rows with ``chosen_rewards`` and ``rejected_rewards`` are taken as they are. Other rows are preference data; a
    record of several answers gives all its comparable pairs, and ties give none.

    Raises:
        Unprocessable: the file cannot be read, or holds no choice.
        OSError: it cannot be opened.
    """
    try:
        first = next((row for _, row in open_rows(path)[1]), None)
        if isinstance(first, Mapping) and REWARDS[0] in first:
            return _read_rewards(path)
        return _read_texts(path, form, renamed or {})
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise error.__cause__ from None
        raise Unprocessable(str(error)) from error


def _read_rewards(path: Path) -> ChoiceFile:
    pairs, places = [], []
    for number, row in open_rows(path)[1]:
        place = f"{path.name}:{number}"
        if isinstance(row, BadRecord):
            raise row.at(place)
        if not isinstance(row, Mapping) or any(not isinstance(row.get(name), Mapping) for name in REWARDS):
            raise Unprocessable(f"{place}: it has no maps {' and '.join(REWARDS)}, as the first row has")
        pairs.append({name: dict(row[name]) for name in REWARDS})
        places.append(place)
    return ChoiceFile(pairs, places, [])


def _read_texts(path: Path, form: str, renamed: Mapping[str, str]) -> ChoiceFile:
    reading = Reading(path, form=form, renamed=dict(renamed))
    records = list(split_into_pairs(reading))
    report = reading.report
    counts = {"are ties": report.tied, "have no preference": report.unjudged, **report.dropped}
    notes = [f"{count} records are left out: {why}" for why, count in counts.items() if count]
    bare = [record for record in records if not record.prompt]
    if bare:
        notes.append(f"{len(bare)} pairs are left out: their answers continue different conversations")
    kept = [record for record in records if record.prompt]
    if not kept:
        raise Unprocessable("; ".join([f"{path} holds no choice between two answers to one prompt", *notes]))
    return ChoiceFile([_make_pair(record) for record in kept], [record.source for record in kept], notes)


def _make_pair(record: Record) -> dict[str, Any]:
    chosen, rejected = (list(answer) for answer in record.answers)
    return {"prompt": list(record.prompt), "chosen": chosen, "rejected": rejected, **record.template_arguments}


@contextmanager
def name_choices_in_errors(places: Sequence[str]) -> Iterator[None]:
    """Name a pair's place before an error about it that is raised inside."""
    try:
        yield
    except TureenError as error:
        index = _PAIR.match(error.param or "")
        if index is None:
            raise
        message = f"{places[int(index[1])]}: {error.message}"
        raise type(error)(message, param=error.param, code=error.code, request_id=error.request_id) from error
