"""Score padded batches with one transformers backbone: rows of all its reward adapters, shared prompts computed once.

This module knows token ids, gates and heads. It knows nothing of text, queues or scales.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen.errors import TureenError
from tureen_core.heads import pool_hidden_states
from tureen_core.packed.exactness import can_share_prompts
from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row, Weights
from tureen_serve.runtimes.on_transformers.accelerator import DeviceRuntime
from tureen_serve.runtimes.on_transformers.padding import compute_positions, group_by_length, pad_sequences
from tureen_serve.runtimes.on_transformers.prompt_memory import (
    NO_MEMORY,
    NO_STORE,
    ComputedPrompt,
    PromptMemory,
    PromptStore,
    copy_prompt,
    join_prompts,
)
from tureen_serve.runtimes.on_transformers.rank_gate import RankGate
from tureen_serve.runtimes.on_transformers.release import release_weights
from tureen_serve.runtimes.on_transformers.shared_prompts import count_cached_tokens, find_shared_prompts, get_prompt
from tureen_serve.runtimes.readout import ReadOut, read_rewards


class TransformersScorer(DeviceRuntime):
    """A backbone and the reward models that use it.

    Args:
        backbone: a headless Hugging Face model.
        readouts: maps an adapter's name to its read-out.
        gate: the backbone's gate; None for a full checkpoint, which has no adapters.
        limits: the limits of one batch.
        description: how it computes, and why not packed.
        store: the memory for prompts of earlier batches.
        base: is kept until the scorer is closed, so that others can share its weights.
    """

    threads = 1

    def __init__(
        self,
        backbone: Any,
        readouts: Mapping[str, ReadOut],
        gate: RankGate | None,
        limits: BatchLimits,
        description: str = "padded, each shared prompt once",
        store: PromptStore = NO_STORE,
        base: object = None,
    ) -> None:
        super().__init__()
        self.limits = limits
        self.description = description
        self._backbone = backbone.eval()
        self._backbone.config.use_cache = False
        self._readouts = readouts
        self._gate = gate
        self._base = base
        self._shares = can_share_prompts(self._backbone)
        self._memory = PromptMemory(store)

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Score rows, in order. ``cached`` is the length of a row's prompt if it was computed for another row.

        Raises:
            Unprocessable: the only text of the batch does not fit into the device's memory.
            Unavailable: the accelerator has failed permanently.
        """
        with self._translate_failures(rows), torch.inference_mode():
            return self._run(rows, NO_MEMORY if fresh else self._memory)

    def close(self) -> None:
        """Free the weights and the prompts."""
        self._memory.close()
        release_weights(self._backbone)
        del self._backbone, self._readouts, self._gate, self._memory, self._base

    def _run(self, rows: Sequence[Row], memory: PromptMemory) -> list[Rewards | TureenError]:
        """Score rows: those with a known or shared prompt continue it, and the others run whole, grouped by length."""
        known = {each: found for each in map(get_prompt, rows) if (found := memory.get(each)) is not None}
        shared = find_shared_prompts(rows, known) if self._shares else {}
        new = [each for each in dict.fromkeys(shared.values()) if each not in known]
        computed = known | self._compute_prompts(new, memory)
        values: dict[int, tuple[float, ...]] = {}
        for indices in group_by_length({index: len(rows[index].ids) - rows[index].shared for index in shared}):
            scores = self._score_continuations([(rows[index], computed[shared[index]]) for index in indices])
            values |= zip(indices, scores, strict=True)
        for indices in group_by_length({index: len(row.ids) for index, row in enumerate(rows) if index not in shared}):
            values |= zip(indices, self._score_whole([rows[index] for index in indices], memory), strict=True)
        cached = count_cached_tokens(rows, shared, known)
        return [Rewards(values[index], cached[index]) for index in range(len(rows))]

    def _compute_prompts(self, prompts: Sequence[Prompt], memory: PromptMemory) -> dict[Prompt, ComputedPrompt]:
        """Compute each of these prompts once, and keep them."""
        if not prompts:
            return {}
        ids, mask = pad_sequences([ids for ids, _ in prompts], "right", self._backbone.device)
        self._set_gate([blend for _, blend in prompts])
        hidden, cache = self._forward(ids, mask)
        found = {each: copy_prompt(hidden, cache, row, slice(len(each[0]))) for row, each in enumerate(prompts)}
        for each, computed in found.items():
            memory.put(each, computed)
        return found

    def _score_whole(self, rows: Sequence[Row], memory: PromptMemory) -> list[tuple[float, ...]]:
        """Score each of these texts as a whole."""
        ids, mask = pad_sequences([row.ids for row in rows], "right", self._backbone.device)
        self._set_gate([row.blend for row in rows])
        if not (memory.capacity and self._shares):
            return self._read(rows, self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        hidden, cache = self._forward(ids, mask)
        for index, row in enumerate(rows):
            if row.shared:
                memory.put(get_prompt(row), copy_prompt(hidden, cache, index, slice(row.shared)))
        return self._read(rows, hidden, mask)

    def _score_continuations(self, rows: Sequence[tuple[Row, ComputedPrompt]]) -> list[tuple[float, ...]]:
        """Score rows by continuing copies of their prompts' keys and values. The numbers are those of whole texts."""
        hidden, mask, cache = join_prompts([each for _, each in rows])
        ids, own = pad_sequences([row.ids[row.shared :] for row, _ in rows], "right", self._backbone.device)
        mask = torch.cat([mask, own], dim=1)
        self._set_gate([row.blend for row, _ in rows])
        answers, _ = self._forward(ids, mask, cache)
        return self._read([row for row, _ in rows], torch.cat([hidden, answers], dim=1), mask)

    def _forward(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None) -> tuple[Tensor, DynamicCache]:
        """Compute hidden states of tokens that follow those in the cache. ``mask`` covers both."""
        cache = DynamicCache() if cache is None else cache
        places = compute_positions(mask)[:, -ids.shape[1] :]
        out = self._backbone(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state, cache

    def _set_gate(self, blends: Sequence[Weights]) -> None:
        if self._gate is not None:
            self._gate.set_rows([(blend, "delta") for blend in blends])

    def _read(self, rows: Sequence[Row], hidden: Tensor, mask: Tensor) -> list[tuple[float, ...]]:
        def pool(indices: list[int], readout: ReadOut) -> Tensor:
            return pool_hidden_states(hidden[indices], mask[indices], readout.pooling, readout.eos_appended)

        return read_rewards(rows, self._readouts, pool)
