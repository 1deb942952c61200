"""Records to files: DSP's whole dialogues with scores, or pairs of messages, or steps, as TRL reads them.

A name that ends with ``.json`` makes a JSON list, any other JSON Lines. The file appears when it is whole, so that a
failure leaves nothing half-written and a file may be converted onto itself.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tureen.json_lines import encode_json_text
from tureen.records import dialogue
from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, BadRecord, Record, read_steps


def write_text_score(records: Iterable[Record], path: str | Path, style: str = "dsp") -> int:
    """Write ``text`` (N whole dialogues) and ``score`` (N numbers, null where unlabelled).

    Args:
        records: they are read once.
        path: ``.json`` for a list, else JSON Lines.
        style: how a turn begins, a name of :data:`tureen.records.dialogue.STYLES`.

    Returns:
        How many records were written.

    Raises:
        BadRecord: a dialogue that would not read back the same, or a negative score, which this form reads as padding.
        BadOption: an unknown style, the folder is missing, or there was nothing to write; ``path`` is left alone.
    """
    return write_rows((_text_score(record, style) for record in records), Path(path))


def write_pairs(records: Iterable[Record], path: str | Path) -> int:
    """Write each comparable pair as ``prompt``, ``chosen``, ``rejected`` (message lists) and both scores.

    Args:
        records: they are read once.
        path: ``.json`` for a list, else JSON Lines.

    Returns:
        How many pairs were written.

    Raises:
        BadOption: the folder is missing, or there was nothing to write; ``path`` is left alone.
    """
    return write_rows(map(_pair, split_into_pairs(records)), Path(path))


def write_answer_lists(records: Iterable[Record], path: str | Path) -> int:
    """Write each record as ``prompt``, ``answers`` (lists of messages) and ``scores`` (null where unlabelled).

    Returns:
        How many records were written.

    Raises:
        BadOption: as :func:`write_pairs`.
    """
    return write_rows(map(_answer_list, records), Path(path))


def write_pairs_with_ties(records: Iterable[Record], path: str | Path) -> int:
    """Write records of two labelled answers as :func:`write_pairs` does, ties too, whose scores are equal.

    Returns:
        How many were written.

    Raises:
        BadRecord: an answer is unlabelled, or the second is scored above the first.
        BadOption: as :func:`write_pairs`.
    """
    return write_rows(map(_pair, records), Path(path))


def write_steps(records: Iterable[Record], path: str | Path) -> int:
    """Write each answer that has step labels as ``prompt``, ``completions``, ``labels``, as TRL reads them, and its
    ``score``; null where unlabelled.

    Returns:
        How many answers were written.

    Raises:
        BadOption: as :func:`write_pairs`.
    """
    return write_rows((row for record in records for row in _walks(record)), Path(path))


def _walks(record: Record) -> Iterator[dict[str, Any]]:
    for answer, score, labels in zip(record.answers, record.scores, record.steps, strict=False):
        yield {
            "prompt": [*record.prompt, *answer[:-1]],
            "completions": read_steps(answer),
            "labels": [_number(label) for label in labels],
            "score": _number(score),
            **record.template_arguments,
            **_meta(record),
        }


def _text_score(record: Record, style: str) -> dict[str, Any]:
    if any(score < 0 for score in record.scores):
        detail = "a negative score is read back as padding; shift the scores, or write pairs instead"
        raise BadRecord("cannot be written", detail, record.source)
    try:
        texts = [dialogue.write_dialogue(conversation, style) for conversation in record.conversations]
    except BadRecord as error:
        raise error.at(record.source) from error
    _check_no_steps(record)
    if record.template_arguments:
        raise BadRecord("cannot be written", "the text form has no tools; write pairs instead", record.source)
    scores = [_number(score) for score in record.scores]
    return {"text": texts, "score": scores, **_rated(record), **_meta(record)}


def _pair(record: Record) -> dict[str, Any]:
    (chosen, rejected), (better, worse) = record.answers, record.scores
    if not better >= worse:
        raise BadRecord("cannot be written", "a pair has its better answer first", record.source)
    _check_no_steps(record)
    return {
        "prompt": record.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": better,
        "rejected_score": worse,
        **_rated(record),
        **record.template_arguments,
        **_meta(record),
    }


def _answer_list(record: Record) -> dict[str, Any]:
    _check_no_steps(record)
    return {
        "prompt": record.prompt,
        "answers": record.answers,
        "scores": [_number(score) for score in record.scores],
        **_rated(record),
        **record.template_arguments,
        **_meta(record),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rated(record: Record) -> dict[str, Any]:
    ratings = {name: [_number(value) for value in values] for name, values in record.attributes.items()}
    return {"attributes": ratings} if ratings else {}


def _check_no_steps(record: Record) -> None:
    if record.steps:
        raise BadRecord("cannot be written", "this form has no step labels; write them with --to-steps", record.source)


def _meta(record: Record) -> dict[str, Any]:
    return {"meta": record.meta} if record.meta else {}


def write_rows(items: Iterable[dict[str, Any]], path: Path) -> int:
    """Write rows of JSON: a list where the name ends with ``.json``, else JSON Lines. They are read once.

    Returns:
        How many were written.

    Raises:
        BadOption: the folder is missing, or there was nothing to write; ``path`` is left alone.
    """
    if not path.parent.is_dir():
        raise BadOption(f"cannot write {path}: its folder does not exist")
    opening, between, closing = ("[\n", ",\n", "\n]\n") if path.suffix == ".json" else ("", "\n", "\n")
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(opening)
            for item in items:
                stream.write((between if count else "") + encode_json_text(item, str))
                count += 1
            stream.write(closing)
        if not count:
            raise BadOption(f"nothing to write to {path}: no record was usable, or none had what is written")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count
