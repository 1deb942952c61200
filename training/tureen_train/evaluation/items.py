"""What is judged: prompts with their answers, which of them are better, and which part of a benchmark they are."""

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

    Args:
        id: what the file calls it, else where it stands in the file.
        prompt: the turns that all answers continue; empty where the answers are whole conversations.
        answers: N continuations.
        scores: N numbers, larger is better; NaN is unlabelled.
        subset: the part of the benchmark, empty where the file names none.
        file: the name of the file.
        attributes: name → N numbers, where answers are rated by several; NaN is unlabelled.
    """

    id: str
    prompt: Conversation
    answers: tuple[Conversation, ...]
    scores: tuple[float, ...]
    subset: str = ""
    file: str = ""
    attributes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def conversations(self) -> list[Conversation]:
        """The prompt with each answer."""
        return [(*self.prompt, *answer) for answer in self.answers]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The comparable pairs as (index of the better, index of the worse)."""
        numbered = list(enumerate(self.scores))
        return [(i, j) for i, better in numbered for j, worse in numbered if better > worse]

    @property
    def lengths(self) -> list[int]:
        """Characters of each answer, so that tokenizers and truncation have no part in it."""
        return [sum(len(join_content(turn)) for turn in answer) for answer in self.answers]

    @property
    def digest(self) -> str:
        """Twelve hex digits over texts and scores: equal items of two evaluations have equal ones."""
        scores = [None if math.isnan(score) else score for score in self.scores]
        text = json.dumps([self.prompt, self.answers, scores], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class LoadedItems:
    """The items of some files, and for each file what was read: ``sha256``, ``kept``, ``dropped``."""

    items: list[Item]
    files: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    def limited(self, count: int | None) -> "LoadedItems":
        """``count`` items in their order, or all: drawn by their content, so that every model gets the same ones."""
        if count is None or count >= len(self.items):
            return self
        drawn = sorted(range(len(self.items)), key=lambda place: (self.items[place].digest, place))[:count]
        note = f"{count} of {len(self.items)} items, drawn by a hash of their content"
        return replace(self, items=[self.items[place] for place in sorted(drawn)], notes=[*self.notes, note])


def read_pairs(paths: Sequence[Path], form: str = "auto", domain: str | None = None, **options: Any) -> LoadedItems:
    """Items of preference files in any form that ``records`` reads.

    Args:
        paths: the files.
        form: their form.
        domain: DSP: the preferred domain.
        options: further arguments of :class:`tureen.records.reading.Reading`.

    Raises:
        DataError: a file cannot be read, or a form or domain does not fit.
        BadFile: nothing in the files can be compared.
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
    """The items, if at least one has an answer that is better than another.

    Raises:
        BadFile: none has.
    """
    named = ", ".join(map(str, paths))
    if not items:
        raise BadFile(f"{named}: no item is left to judge by")
    if not any(item.pairs for item in items):
        raise BadFile(
            f"{named}: no item has an answer that is better than another: all scores tie or are absent"
            " (for DSP's domains, name the preferred one with --domain)"
        )
    return items


def _of_record(record: Record, file: str) -> Item:
    record.check_no_template_arguments()
    subset = record.meta.get("subset")
    return Item(
        id=str(record.meta.get("id", _place(record.source))),
        prompt=record.prompt,
        answers=record.answers,
        scores=record.scores,
        subset="" if subset is None else str(subset),
        file=file,
        attributes=record.attributes,
    )


def _place(source: str) -> str:
    return Path(source).name


def number_repeated_ids(items: Iterable[Item]) -> list[Item]:
    """The items, ids that stand several times numbered from the second on."""
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
    """The rows of a benchmark's file, each with where it stands; every one must have the published columns.

    Raises:
        BadFile: as :func:`tureen.records.containers.read_rows`.
        BadRecord: a row cannot be decoded, or a column is missing or of another type; row, file and column are named.
    """
    return [(source, _row(source, item, needs)) for source, item in read_rows(path)]


def _row(source: str, item: object, needs: Columns) -> Fields:
    if isinstance(item, BadRecord):
        raise item.at(source)
    if not isinstance(item, dict):
        raise BadRecord(
            "not an object", f"a row is an object with named columns, this is {describe_type(item)}", source
        )
    for name, wanted in needs.items():
        if item.get(name) is None:
            there = ", ".join(str(key) for key, value in item.items() if value is not None) or "nothing"
            raise BadRecord("missing column", f"`{name}` is not there or null; there is {there}", source)
        if not isinstance(item[name], wanted):
            types = wanted if isinstance(wanted, tuple) else (wanted,)
            raise BadRecord("wrong type", f"`{name}` must be {_listed(types)}, is {describe_type(item[name])}", source)
    return item


def _listed(types: tuple[type, ...]) -> str:
    names = {str: "a string", list: "a list", int: "a number"}
    return " or ".join(names[each] for each in types)


def read_turns(fields: Fields, name: str, source: str) -> Conversation:
    """A prompt or an answer that is a string or a list of messages.

    Raises:
        BadRecord: a message is not one.
    """
    value = fields[name]
    if isinstance(value, str):
        return ((dialogue.user_turn if name == "prompt" else dialogue.assistant_turn)(value),)
    try:
        return read_messages(value, name)
    except BadRecord as error:
        raise error.at(source) from error


def read_texts(fields: Fields, name: str, source: str) -> tuple[Conversation, ...]:
    """A list of answers that are strings.

    Raises:
        BadRecord: one is not.
    """
    try:
        given = [check_type(text, str, f"{name}[{place}]") for place, text in enumerate(fields[name])]
    except BadRecord as error:
        raise error.at(source) from error
    return tuple((dialogue.assistant_turn(text),) for text in given)
