"""Records of many answers as records of two."""

from collections.abc import Iterable, Iterator
from typing import Any

from tureen.records.schema import Record


def split_into_pairs(records: Iterable[Record]) -> Iterator[Record]:
    """Yield a record of two answers for each comparable pair, the better one first."""
    for record in records:
        for better, worse in record.pairs:
            yield take_pair(record, better, worse)


def take_pair(record: Record, first: int, second: int) -> Record:
    """Make a record of two of a record's answers, with what belongs to them."""
    return Record(
        record.prompt,
        (record.answers[first], record.answers[second]),
        (record.scores[first], record.scores[second]),
        record.source,
        _meta_of(record, first, second),
        {name: (values[first], values[second]) for name, values in record.attributes.items()},
        (record.steps[first], record.steps[second]) if record.steps else (),
        record.tools,
        record.chat_template_kwargs,
    )


def _meta_of(record: Record, *indices: int) -> dict[str, Any]:
    """Return ``meta`` for some of the answers, with their names and similarities."""
    meta = dict(record.meta)
    if "names" in meta:
        meta["names"] = [meta["names"][index] for index in indices]
    alike = meta.get("similarity")
    if isinstance(alike, dict) and len(alike.get("cosine", ())) == len(record.answers):
        meta["similarity"] = {**alike, "cosine": [[alike["cosine"][i][j] for j in indices] for i in indices]}
    return meta
