"""The gate rows of the tokens of one step, in a vLLM worker. This module knows tensors and names, but not vLLM."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tureen_serve.runtimes.on_vllm.adapters import parse_gate_name


class GateTable:
    """The gate of a worker: the weights of each token's rank activations.

    A ``delta`` row multiplies: h' = d·h. A ``factor`` row averages A and B separately: h'ᵢ = uᵢ·Σⱼ uⱼhⱼ over all
    experts. Tokens of other adapters, and the dummy tokens of warm-up, have d = 1 and u = 0.

    Args:
        tokens: the largest number of tokens of a step.
        rank: R, to which vLLM pads adapters.
        experts: the experts' names, in the order of the concatenation.
        ranks: the part of R that belongs to each expert.
        factor: whether requests may have ``factor`` semantics; then the experts' ranks are equal.
        device: the model's device.

    Attributes:
        is_open: whether a token of the step has a row that is not zero.
        averaged: whether a token of the step has a ``factor`` row. Both are used on CPUs only, where no CUDA graph is
            captured.
    """

    def __init__(
        self,
        tokens: int,
        rank: int,
        experts: Sequence[str],
        ranks: Sequence[int],
        factor: bool,
        device: torch.device | str,
    ) -> None:
        self.experts, self.ranks, self.factor = tuple(experts), tuple(ranks), factor
        self.is_open, self.averaged = True, factor
        self._rank, self._device = rank, device
        self._delta = torch.ones(tokens, rank, device=device)
        self._units = torch.zeros(tokens, rank, device=device) if factor else None

    def mix(self, h: Tensor, averaged: bool = True) -> Tensor:
        """Mix rank activations ``[..., T, R]`` of the step's tokens; if not ``averaged``, by ``delta`` rows only."""
        count = h.shape[-2]
        mixed = h * self._delta[:count].to(h.dtype)
        if self._units is None or not averaged:
            return mixed
        units, used = self._units[:count].to(h.dtype), sum(self.ranks)
        parts = (h * units)[..., :used].unflatten(-1, (len(self.ranks), self.ranks[0]))
        pooled = parts.sum(-2).tile(len(self.ranks))
        return mixed + torch.nn.functional.pad(pooled, (0, self._rank - used)) * units

    def write_rows(self, names: Sequence[str | None], tokens: Sequence[int]) -> None:
        """Write the rows of a step: ``names[i]`` is the adapter of request i, which has ``tokens[i]`` tokens."""
        rows = np.stack([self._row(name) for name in names])
        self.is_open, self.averaged = bool(rows.any()), bool(rows[:, 1].any())
        counts = self._send(np.asarray(tokens, dtype=np.int64))
        total = int(np.sum(tokens))
        for buffer, half in zip((self._delta, self._units), (rows[:, 0], rows[:, 1]), strict=True):
            if buffer is not None:
                spread = self._send(np.ascontiguousarray(half)).repeat_interleave(counts, dim=0, output_size=total)
                buffer[:total].copy_(spread)

    def _send(self, array: "np.ndarray[Any, Any]") -> Tensor:
        """Copy an array to the device, from memory of its own, so that no later step changes it during the copy."""
        tensor = torch.from_numpy(array)
        if torch.device(self._device).type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    @lru_cache(maxsize=4096)  # noqa: B019  (a table lives as long as its worker)
    def _row(self, name: str | None) -> "np.ndarray[Any, Any]":
        """Make the row ``[2, R]`` of an adapter's name: its d and u. Both are zero for a request without adapter."""
        row = np.zeros((2, self._rank), dtype=np.float32)
        if name is None:
            return row
        gate = parse_gate_name(name)
        if gate is None:
            row[0] = 1.0
            return row
        weights, semantics = gate
        values = [weights.get(expert, 0.0) for expert in self.experts]
        row[int(semantics == "factor"), : sum(self.ranks)] = np.repeat(values, self.ranks)
        return row
