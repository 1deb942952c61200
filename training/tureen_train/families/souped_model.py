"""A base with any weights of its experts, in one model: adapted weights become W + ΔW while answers are written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tureen_core.soup import Stack, compute_delta


class SoupedModel:
    """Holds a base and its stacked experts.

    Args:
        base: the base's folder.
        stack: the experts.
        dtype: that the model computes in. W + ΔW is summed in float32 and cast once.

    Attributes:
        model: the causal model; the bare base outside of :meth:`at`.
    """

    def __init__(self, base: Path, stack: Stack, dtype: torch.dtype = torch.float32) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval().to(device)
        self.stack = stack

    @contextmanager
    def at(self, weights: Mapping[str, float]) -> Iterator[Any]:
        """Yield the model with a soup's weights, and put the base's back.

        Raises:
            SoupError: a weight has the name of no expert.
        """
        row = self.stack.order_weights(weights)
        layers = {path: self.model.get_submodule(path) for path in self.stack.modules} if any(row) else {}
        own = {path: layer.weight.data for path, layer in layers.items()}
        try:
            for path, layer in layers.items():
                delta = compute_delta(self.stack.modules[path], row)
                layer.weight.data = (own[path].float() + delta.to(own[path].device)).to(own[path].dtype)
            yield self.model
        finally:
            for path, layer in layers.items():
                layer.weight.data = own[path]
