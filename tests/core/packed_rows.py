"""Texts that say how many of their tokens are a prompt, and what they share in a batch."""

from collections import Counter
from collections.abc import Container, Sequence
from typing import NamedTuple

from tureen_core.packed.layout import Blend, PackedBatch, Prompt, pack_texts


class Row(NamedTuple):
    ids: tuple[int, ...]
    blend: Blend
    shared: int = 0


def find_shared(rows: Sequence[Row], known: Container[Prompt] = ()) -> dict[int, Prompt]:
    """Prompts that are known or that two rows have, by the row's index."""
    prompts = {index: (row.ids[: row.shared], row.blend) for index, row in enumerate(rows) if row.shared < len(row.ids)}
    count = Counter(prompts.values())
    return {index: each for index, each in prompts.items() if each[0] and (count[each] > 1 or each in known)}


def pack_rows(rows: Sequence[Row]) -> PackedBatch:
    return pack_texts(rows, find_shared(rows))
