"""Evaluation by several processes, which run equally many batches: what is missing in the last ones is left empty.

accelerate would repeat the first items there. It drops their predictions later, but not their part of a loss.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

REAL, ROWS = "real_items", "rows"  # keys of a batch: its number of items, and that with the places that are left empty


class Items(Protocol):
    """A data set in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class FilledSet(Dataset[Any]):
    """A data set, filled up with None.

    Args:
        multiple: its length is filled up to a multiple of this number.
    """

    def __init__(self, items: Items, multiple: int) -> None:
        self.items = items
        self._length = math.ceil(len(items) / multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self.items[index] if index < len(self.items) else None


def collate_filled(collate: Callable[[Any], dict[str, Any]], first: Any, items: Sequence[Any]) -> dict[str, Any]:
    """Make a batch of the items that are not None.

    If there is none, it is a batch of ``first``, since all processes must run the model; its loss does not count.
    """
    real = [item for item in items if item is not None]
    return {**collate(real or [first]), REAL: torch.tensor(len(real)), ROWS: torch.tensor(len(items))}


def fill_rows(values: Tensor, rows: int) -> Tensor:
    """Fill values ``[B, ...]`` up to ``rows`` rows with NaN, so that those of all processes can be gathered."""
    return torch.cat([values, values.new_full((rows - len(values), *values.shape[1:]), math.nan)])
