"""Records in, records out: pairs, a held-out part, fewer.

What is chosen depends on a hash of the seed and the prompt, never on the order of a file: a prompt stays on its side
when files are added, and all records of a prompt stay together.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from tureen_train.records.schema import BadOption, Record


def split_into_pairs(records: Iterable[Record]) -> Iterator[Record]:
    """Each comparable pair as a record of two answers, the better first; ties and unlabelled answers make none."""
    for record in records:
        for better, worse in record.pairs:
            yield Record(
                record.prompt,
                (record.answers[better], record.answers[worse]),
                (record.scores[better], record.scores[worse]),
                record.source,
                _meta_of(record, better, worse),
                {name: (values[better], values[worse]) for name, values in record.attributes.items()},
                (record.steps[better], record.steps[worse]) if record.steps else (),
            )


def hold_out_prompts(records: Iterable[Record], fraction: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Split by prompt: about ``fraction`` of the prompts go to the second list, with all their records.

    Raises:
        BadOption: ``fraction`` is not between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise BadOption(f"the held-out fraction must be 0 to 1, is {fraction}")
    kept: list[Record] = []
    held: list[Record] = []
    for record in records:
        (held if _draw(record, seed) < fraction else kept).append(record)
    return kept, held


def limit_records(records: Iterable[Record], count: int, seed: int) -> list[Record]:
    """``count`` records, or all where there are fewer, in their order; a larger count keeps those of a smaller one.

    Raises:
        BadOption: ``count`` is negative.
    """
    if count < 0:
        raise BadOption(f"the limit must be 0 or more, is {count}")
    everything = list(records)
    drawn = sorted(range(len(everything)), key=lambda index: (_draw(everything[index], seed), index))
    return [everything[index] for index in sorted(drawn[:count])]


def _draw(record: Record, seed: int) -> float:
    """A number in [0, 1) that the seed and the prompt decide."""
    drawn = hashlib.sha256(f"{seed}:{record.prompt_key}".encode()).digest()
    return int.from_bytes(drawn[:6], "big") / 2**48


def _meta_of(record: Record, *indices: int) -> dict[str, Any]:
    """``meta`` of some of the answers: one name an answer, and how alike every two are."""
    meta = dict(record.meta)
    if "names" in meta:
        meta["names"] = [meta["names"][index] for index in indices]
    alike = meta.get("similarity")
    if isinstance(alike, dict) and len(alike.get("cosine", ())) == len(record.answers):
        meta["similarity"] = {**alike, "cosine": [[alike["cosine"][i][j] for j in indices] for i in indices]}
    return meta
