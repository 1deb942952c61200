"""A LoRA adapter in memory: for each adapted module a pair of low-rank factors and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


class SoupError(ValueError):
    """An adapter cannot be part of a soup. The message names the adapter and the reason."""


@dataclass(frozen=True)
class LoraPair:
    """One module's low-rank term: ΔW = scale · b @ a, with a ``[r, in]`` and b ``[out, r]``."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The rank r, the number of rows of ``a``."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter. ``modules`` maps the path of a module in the causal model to its pair."""

    name: str
    modules: Mapping[str, LoraPair]
