"""The items of an evaluation: a prompt, its answers and their scores, from preference data or a benchmark's files."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tureen.messages import join_content
from tureen.records import dialogue
from tureen.records.containers import compute_digest, read_rows
from tureen.records.fields import Fields, check_type, describe_type, read_messages
from tureen.records.reading import Reading
from tureen.records.schema import BadFile, BadRecord, Conversation, Record

Columns = Mapping[str, type | tuple[type, ...]]


@dataclass(frozen=True)
class Item:
    """A prompt and its answers.

    Attributes:
        id: the id in the file, or else the file's name and line.
        prompt: the turns before the answers; empty if the answers are whole conversations.
        answers: N answers.
        scores: N numbers, larger is better; NaN if an answer has no label.
        subset: the part of the benchmark; empty if the file names none.
        file: the file's name.
        attributes: further ratings by name, N numbers each; NaN if an answer has no label.
        template_arguments: see :attr:`tureen.records.schema.Record.template_arguments`.
    """

    id: str
    prompt: Conversation
    answers: tuple[Conversation, ...]
    scores: tuple[float, ...]
    subset: str = ""
    file: str = ""
    attributes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    template_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conversations(self) -> list[Conversation]:
        """Each answer with the prompt before it."""
        return [(*self.prompt, *answer) for answer in self.answers]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The comparable pairs as (index of the better, index of the worse)."""
        numbered = list(enumerate(self.scores))
        return [(i, j) for i, better in numbered for j, worse in numbered if better > worse]

    @property
    def lengths(self) -> list[int]:
        """The length of each answer in characters, which depends on no tokenizer and no truncation."""
        return [sum(len(join_content(turn)) for turn in answer) for answer in self.answers]

    @property
    def digest(self) -> str:
        """A hash of texts and scores, in 12 hexadecimal digits. Equal items have equal digests in all evaluations."""
        scores = [None if math.isnan(score) else score for score in self.scores]
        parts = [self.prompt, self.answers, scores]
        text = json.dumps([*parts, self.template_arguments] if self.template_arguments else parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class LoadedItems:
    """The items of some files.

    Attributes:
        items: the items of all files, in order.
        files: by file name, its ``sha256``, and the numbers of rows ``kept`` and ``dropped``.
        notes: remarks for the report.
    """

    items: list[Item]
    files: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    def limited(self, count: int | None) -> "LoadedItems":
        """Return ``count`` items in their order, or all of them.

        They are drawn by a hash of their content, so all models are evaluated on the same items.
        """
        if count is None or count >= len(self.items):
            return self
        drawn = sorted(range(len(self.items)), key=lambda place: (self.items[place].digest, place))[:count]
        note = f"{count} of {len(self.items)} items, drawn by a hash of their content"
        return replace(self, items=[self.items[place] for place in sorted(drawn)], notes=[*self.notes, note])


def read_pairs(paths: Sequence[Path], form: str = "auto", domain: str | None = None, **options: Any) -> LoadedItems:
    """Read items from preference data in any form that :mod:`tureen.records` knows.

    ``form``, ``domain`` and ``options`` are arguments of :class:`tureen.records.reading.Reading`.

    Raises:
        DataError: a file cannot be read, or the form or domain does not fit.
        BadFile: no item has an answer that is better than another.
    """
    items: list[Item] = []
    files: dict[str, Any] = {}
    notes: list[str] = []
    for path in paths:
        reading = Reading(path, form=form, domain=domain, **options)
        items += [_of_record(record, path.name) for record in reading]
        report = reading.report
        files[path.name] = {
            "sha256": next(iter(report.files.values())),
            "kept": report.kept,
            "dropped": report.dropped,
            "dropped_answers": report.dropped_answers,
            "columns": report.columns,
        }
        if report.dropped or report.dropped_answers or report.columns:
            notes += [f"{path.name}: {line.strip()}" for line in report.lines()]
    return LoadedItems(check_comparable(number_repeated_ids(items), paths), files, notes)


def check_comparable(items: list[Item], paths: Sequence[Path]) -> list[Item]:
    """Return the items if at least one has an answer that is better than another.

    Raises:
        BadFile: no item has one.
    """
    named = ", ".join(map(str, paths))
    if not items:
        raise BadFile(f"{named}: no item is left to evaluate on; see the reasons above for what was left out")
    if not any(item.pairs for item in items):
        raise BadFile(
            f"{named}: no item has an answer that is better than another: all scores are equal or missing"
            " (for DSP's files, name the preferred domain with --domain)"
        )
    return items


def _of_record(record: Record, file: str) -> Item:
    subset = record.meta.get("subset")
    return Item(
        id=str(record.meta.get("id", Path(record.source).name)),
        prompt=record.prompt,
        answers=record.answers,
        scores=record.scores,
        subset="" if subset is None else str(subset),
        file=file,
        attributes=record.attributes,
        template_arguments=record.template_arguments,
    )


def number_repeated_ids(items: Iterable[Item]) -> list[Item]:
    """Make the ids unique: the second item with the same id gets ``#2`` added, and so on."""
    seen: Counter[str] = Counter()
    apart = []
    for item in items:
        seen[item.id] += 1
        apart.append(item if seen[item.id] == 1 else replace(item, id=f"{item.id}#{seen[item.id]}"))
    return apart


# --------------------------------------------------------------------------- published benchmarks


def read_benchmark(
    paths: Sequence[Path], columns: Columns, make_item: Callable[[Fields, str, str], Item]
) -> LoadedItems:
    """Read the files of a published benchmark, in any container.

    Args:
        columns: the published columns and their types.
        make_item: makes an item from a row, the row's place in the file, and the file's name.

    Raises:
        DataError: a file cannot be read, or see :func:`read_published_rows`.
        BadFile: no item has an answer that is better than another.
    """
    items: list[Item] = []
    files: dict[str, Any] = {}
    for path in paths:
        rows = read_published_rows(path, columns)
        files[path.name] = {"sha256": compute_digest(path), "kept": len(rows), "dropped": {}}
        items += [make_item(row, source, path.name) for source, row in rows]
    return LoadedItems(check_comparable(number_repeated_ids(items), paths), files)


def read_published_rows(path: Path, needs: Columns) -> list[tuple[str, Fields]]:
    """Read the rows of a benchmark's file, each with its file and line. A row must have all published columns.

    Raises:
        BadFile: see :func:`tureen.records.containers.read_rows`.
        BadRecord: a row cannot be decoded, or a column is missing or has another type. The message names file, line and
            column.
    """
    return [(source, _row(source, item, needs)) for source, item in read_rows(path)]


def _row(source: str, item: object, needs: Columns) -> Fields:
    if isinstance(item, BadRecord):
        raise item.at(source)
    if not isinstance(item, dict):
        raise BadRecord(
            "not an object", f"a row must be an object with named columns, not {describe_type(item)}", source
        )
    for name, wanted in needs.items():
        if item.get(name) is None:
            there = ", ".join(str(key) for key, value in item.items() if value is not None) or "nothing"
            raise BadRecord("missing column", f"`{name}` is missing or null; the row has {there}", source)
        if not isinstance(item[name], wanted):
            types = wanted if isinstance(wanted, tuple) else (wanted,)
            raise BadRecord("wrong type", f"`{name}` must be {_listed(types)}, is {describe_type(item[name])}", source)
    return item


def _listed(types: tuple[type, ...]) -> str:
    names = {str: "a string", list: "a list", int: "a number"}
    return " or ".join(names[each] for each in types)


def read_turns(fields: Fields, name: str, source: str) -> Conversation:
    """Read a prompt or an answer, given as a string or as a list of messages.

    Raises:
        BadRecord: a message is invalid.
    """
    value = fields[name]
    if isinstance(value, str):
        return ((dialogue.user_turn if name == "prompt" else dialogue.assistant_turn)(value),)
    try:
        return read_messages(value, name)
    except BadRecord as error:
        raise error.at(source) from error


def read_texts(fields: Fields, name: str, source: str) -> tuple[Conversation, ...]:
    """Read a list of answers, each a string.

    Raises:
        BadRecord: an answer is not a string.
    """
    try:
        given = [check_type(text, str, f"{name}[{place}]") for place, text in enumerate(fields[name])]
    except BadRecord as error:
        raise error.at(source) from error
    return tuple((dialogue.assistant_turn(text),) for text in given)
