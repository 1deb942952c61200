"""Keys and values of running texts as one batch. Rows join and leave between steps; padding is on the left.

This module knows tensors only. The stepper knows which text a row belongs to, and its gate.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tureen_serve.runtimes.on_transformers.padding import compute_positions, pad_sequences


class CacheRows:
    """The rows of a causal model's cache.

    Args:
        model: a Hugging Face causal model whose cache holds keys and values. Keys outside of a sliding window are
            kept too; the model's mask hides them.

    Attributes:
        torn: whether rows could not be joined to all layers, or dropped from all. Then all rows must be dropped.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self.torn = False

    def __len__(self) -> int:
        return len(self._mask)

    @property
    def width(self) -> int:
        """The number of places of every row, with padding."""
        return self._mask.shape[1]

    def prefill(self, prompts: Sequence[Sequence[int]], owners: Sequence[int]) -> Tensor:
        """Compute each prompt once, and append a row for each text.

        Args:
            owners: for each text, the index of its prompt.

        Returns:
            ``[len(owners), V]`` float32 logits of the next tokens.
        """
        ids, mask = pad_sequences(prompts, "left", self._model.device)
        cache = DynamicCache()
        logits = self._forward(ids, mask, compute_positions(mask), cache)
        chosen = torch.tensor(owners, device=ids.device)
        cache.batch_select_indices(chosen)
        self.append(cache, mask[chosen])
        return logits[chosen]

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to every row and return the ``[B, V]`` float32 logits of the next tokens.

        If this fails, the rows are what they were.
        """
        width = self.width
        ids = torch.tensor(tokens, device=self._mask.device).unsqueeze(1)
        mask = nn.functional.pad(self._mask, (0, 1), value=1)
        try:
            logits = self._forward(ids, mask, mask.sum(1, keepdim=True) - 1, self._cache)
        except Exception:  # some layers may have the new token
            self._select((..., slice(width), slice(None)))
            raise
        self._mask = mask
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and the padding that no remaining row needs.

        The first rows are kept without a copy, so this needs no memory. Copies replace the rows layer by layer.
        """
        if len(rows) == len(self):
            return
        if not rows:
            self._cache, self._mask, self.torn = DynamicCache(), self._mask[:0, :0], False
            return
        if list(rows) == list(range(len(rows))):
            self._select(slice(len(rows)))
            self._mask = self._mask[: len(rows)]
        else:
            self.torn = True
            chosen = torch.tensor(rows, device=self._mask.device)
            self._cache.batch_select_indices(chosen)
            self._mask = self._mask[chosen]
            self.torn = False
        spare = self.width - int(self._mask.sum(1).max())
        self._select((..., slice(spare, None), slice(None)))
        self._mask = self._mask[:, spare:]

    def _forward(self, ids: Tensor, mask: Tensor, places: Tensor, cache: DynamicCache) -> Tensor:
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def append(self, cache: DynamicCache, mask: Tensor) -> None:
        """Append rows that have run, padded on the left as ``mask`` ``[B, T]`` says. They belong to this batch then."""
        if not len(self):
            self._cache, self._mask = cache, mask
            return
        self.torn = True
        width = max(self.width, mask.shape[1])
        for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([_widen(mine.keys, width), _widen(theirs.keys, width)])
            mine.values = torch.cat([_widen(mine.values, width), _widen(theirs.values, width)])
        own, other = (nn.functional.pad(each, (width - each.shape[1], 0)) for each in (self._mask, mask))
        self._mask = torch.cat([own, other])
        self.torn = False

    def _select(self, part: Any) -> None:
        """Keep a part of the keys and values ``[B, heads, T, d]`` of every layer, as views."""
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[part], layer.values[part]


def _widen(states: Tensor, width: int) -> Tensor:
    """Pad ``[B, heads, T, d]`` with zeros on the left to ``width`` places."""
    return nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
