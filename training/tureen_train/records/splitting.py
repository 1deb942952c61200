"""Records in, records out: a held-out part, fewer.

What is chosen depends on a hash of the seed and the prompt, never on the order of a file: a prompt stays on its side
when files are added, and all records of a prompt stay together.
"""

import hashlib
from collections.abc import Iterable

from tureen.records.schema import BadOption, Record


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
