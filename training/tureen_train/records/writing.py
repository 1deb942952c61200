"""Records to files: DSP's whole dialogues with scores, or pairs of messages as TRL reads them.

A name that ends with ``.json`` makes a JSON list, any other JSON Lines. The file appears when it is whole, so that a
failure leaves nothing half-written and a file may be converted onto itself.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tureen_train.records import dialogue
from tureen_train.records.schema import BadOption, BadRecord, Record
from tureen_train.records.transforms import to_pairs


def write_text_score(records: Iterable[Record], path: str | Path, style: str = "dsp") -> int:
    """Write ``text`` (N whole dialogues) and ``score`` (N numbers, null where unlabelled).

    Args:
        records: they are read once.
        path: ``.json`` for a list, else JSON Lines.
        style: how a turn begins, a name of :data:`tureen_train.records.dialogue.STYLES`.

    Returns:
        How many records were written.

    Raises:
        BadRecord: a dialogue that would not read back the same, or a negative score, which this form reads as padding.
        BadOption: an unknown style, the folder is missing, or there was nothing to write; ``path`` is left alone.
    """
    return _write((_text_score(record, style) for record in records), Path(path))


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
    return _write(map(_pair, to_pairs(records)), Path(path))


def _text_score(record: Record, style: str) -> dict[str, Any]:
    if any(score < 0 for score in record.scores):
        detail = "a negative score is read back as padding; shift the scores, or write pairs instead"
        raise BadRecord("cannot be written", detail, record.source)
    try:
        texts = [dialogue.write(conversation, style) for conversation in record.conversations]
    except BadRecord as error:
        raise error.at(record.source) from error
    scores = [None if math.isnan(score) else score for score in record.scores]
    return {"text": texts, "score": scores, **_meta(record)}


def _pair(record: Record) -> dict[str, Any]:
    (chosen, rejected), (better, worse) = record.answers, record.scores
    return {
        "prompt": record.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": better,
        "rejected_score": worse,
        **_meta(record),
    }


def _meta(record: Record) -> dict[str, Any]:
    return {"meta": record.meta} if record.meta else {}


def _write(items: Iterable[dict[str, Any]], path: Path) -> int:
    if not path.parent.is_dir():
        raise BadOption(f"cannot write {path}: its folder does not exist")
    opening, between, closing = ("[\n", ",\n", "\n]\n") if path.suffix == ".json" else ("", "\n", "\n")
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(opening)
            for item in items:
                stream.write((between if count else "") + json.dumps(item, ensure_ascii=False, default=str))
                count += 1
            stream.write(closing)
        if not count:
            raise BadOption(f"nothing to write to {path}: no record was usable, or none had a comparable pair")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count
