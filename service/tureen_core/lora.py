"""A LoRA adapter as it is computed with: for each adapted module a pair of low-rank factors and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


class SoupError(ValueError):
    """An adapter cannot be part of a soup; the message names it and says why."""


@dataclass(frozen=True)
class LoraPair:
    """One module's low-rank term: ΔW = scale · b @ a, with a ``[r, in]`` and b ``[out, r]``."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: module path in the causal model → its pair."""

    name: str
    modules: Mapping[str, LoraPair]
