"""Rewards read from one transformers backbone: all reward adapters on it in one batch, a shared prompt computed once.

Knows token ids, gates and heads; nothing of text, queues or scales.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen.errors import Unavailable, Unprocessable
from tureen_core.heads import LinearHead, Pooling, pool
from tureen_serve.runtimes.contract import Limits, Rewards, Row, Weights
from tureen_serve.runtimes.padding import pad, positions
from tureen_serve.runtimes.rank_gate import Gate

Prompt = tuple[tuple[int, ...], Weights]


@dataclass(frozen=True)
class ReadOut:
    """How a reward leaves the hidden states. Those of one blend differ in their head's weights only."""

    head: LinearHead
    pooling: Pooling
    eos_appended: bool


class TransformersScorer:
    """One backbone and the reward models on it.

    Args:
        backbone: a headless Hugging Face model.
        readouts: adapter name → its head.
        gate: the backbone's; None for a full checkpoint, which is its own reward model.
        limits: what one batch may hold.
    """

    def __init__(self, backbone: Any, readouts: Mapping[str, ReadOut], gate: Gate | None, limits: Limits) -> None:
        self.limits = limits
        self._backbone = backbone.eval()
        self._backbone.config.use_cache = False
        self._readouts = readouts
        self._gate = gate
        self._shares = can_share(self._backbone)

    def run(self, rows: Sequence[Row]) -> list[Rewards]:
        """Rewards of each row, in order. ``cached`` is the prompt's length for all rows of a shared prompt but one.

        Raises:
            Unprocessable: this one text does not fit the device.
            Unavailable: the accelerator has failed for good.
        """
        try:
            return self._run(rows)
        except torch.OutOfMemoryError:
            if len(rows) > 1:
                raise
            raise Unprocessable("the text does not fit the device", code="input_exceeds_device_memory") from None
        except torch.AcceleratorError as error:
            raise Unavailable("the accelerator has failed; restart the server", code="engine_dead") from error

    def close(self) -> None:
        """Free the weights."""
        del self._backbone, self._readouts, self._gate

    @torch.inference_mode()
    def _run(self, rows: Sequence[Row]) -> list[Rewards]:
        forked = self._forking(rows)
        whole = [index for index in range(len(rows)) if index not in forked]
        rewards = dict(zip(whole, self._whole([rows[index] for index in whole]), strict=True))
        rewards |= zip(forked, self._forked([rows[index] for index in forked]), strict=True)
        return [rewards[index] for index in range(len(rows))]

    def _forking(self, rows: Sequence[Row]) -> dict[int, None]:
        """Indices of rows whose prompt another row has too."""
        prompts: dict[Prompt, list[int]] = {}
        for index, row in enumerate(rows):
            if self._shares and 0 < row.shared < len(row.ids):
                prompts.setdefault(_prompt(row), []).append(index)
        return dict.fromkeys(index for group in prompts.values() if len(group) > 1 for index in group)

    def _whole(self, rows: Sequence[Row]) -> list[Rewards]:
        """Every text by itself."""
        if not rows:
            return []
        ids, mask = pad([row.ids for row in rows], "right", self._backbone.device)
        self._weigh([row.blend for row in rows])
        hidden = self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return [Rewards(values) for values in self._read(rows, hidden, mask)]

    def _forked(self, rows: Sequence[Row]) -> list[Rewards]:
        """Each prompt once, then all answers on copies of its keys and values: the same numbers as whole texts."""
        if not rows:
            return []
        prompts: dict[Prompt, int] = {}
        owners = [prompts.setdefault(_prompt(row), len(prompts)) for row in rows]
        owner = torch.tensor(owners, device=self._backbone.device)
        trunk, trunk_mask, cache = self._trunk(list(prompts))
        cache.batch_select_indices(owner)
        ids, mask = pad([row.ids[row.shared :] for row in rows], "right", self._backbone.device)
        mask = torch.cat([trunk_mask[owner], mask], dim=1)
        places = positions(mask)[:, trunk.shape[1] :]
        self._weigh([row.blend for row in rows])
        branches = self._backbone(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        ).last_hidden_state
        values = self._read(rows, torch.cat([trunk[owner], branches], dim=1), mask)
        return [
            Rewards(each, cached=0 if owners.index(owners[index]) == index else rows[index].shared)
            for index, each in enumerate(values)
        ]

    def _trunk(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Any]:
        """Hidden states, mask and cache of prompts, padded on the left so that answers follow without a gap."""
        ids, mask = pad([ids for ids, _ in prompts], "left", self._backbone.device)
        cache = DynamicCache()
        self._weigh([blend for _, blend in prompts])
        hidden = self._backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask), past_key_values=cache, use_cache=True
        ).last_hidden_state
        return hidden, mask, cache

    def _weigh(self, blends: Sequence[Weights]) -> None:
        if self._gate is not None:
            self._gate.set([(blend, "delta") for blend in blends])

    def _read(self, rows: Sequence[Row], hidden: Tensor, mask: Tensor) -> list[tuple[float, ...]]:
        """Σ wᵢ·headᵢ of each row's pooled hidden state."""
        values: list[tuple[float, ...]] = [()] * len(rows)
        blends: dict[Weights, list[int]] = {}
        for index, row in enumerate(rows):
            blends.setdefault(row.blend, []).append(index)
        for blend, picks in blends.items():
            readouts = [(self._readouts[name], weight) for name, weight in blend]
            like = readouts[0][0]
            pooled = pool(hidden[picks], mask[picks], like.pooling, like.eos_appended)
            rewards = torch.stack([weight * each.head(pooled) for each, weight in readouts]).sum(0)
            for index, columns in zip(picks, rewards.tolist(), strict=True):
                values[index] = tuple(columns)
        return values


def _prompt(row: Row) -> Prompt:
    return row.ids[: row.shared], row.blend


@torch.inference_mode()
def can_share(backbone: Any) -> bool:
    """Whether a prompt's hidden states do not depend on what follows it, and its cache is keys and values only.

    Tried out, since no attribute says so for all models: an encoder's first state changes with the last token.
    """
    if any(DynamicCache(config=backbone.config).is_linear):
        return False
    ids = torch.tensor([[1, 1], [1, 2]], device=backbone.device)
    first = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    return bool(torch.dist(first[0], first[1]) < 1e-3 * first[0].norm())
