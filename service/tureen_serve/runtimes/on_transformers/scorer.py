"""Rewards read from one transformers backbone: all reward adapters on it in one batch, a shared prompt computed once.

Knows token ids, gates and heads; nothing of text, queues or scales.
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
from tureen_serve.runtimes.contract import Limits, Rewards, Row, Weights
from tureen_serve.runtimes.on_transformers.accelerator import lonely, mortal
from tureen_serve.runtimes.on_transformers.padding import alike, pad, positions
from tureen_serve.runtimes.on_transformers.prompt_memory import NOTHING, Past, PromptMemory, laid, past
from tureen_serve.runtimes.on_transformers.rank_gate import Gate
from tureen_serve.runtimes.on_transformers.sharing import cached, prompt, shared
from tureen_serve.runtimes.readout import ReadOut, read


class TransformersScorer:
    """One backbone and the reward models on it.

    Args:
        backbone: a headless Hugging Face model.
        readouts: adapter name → its head.
        gate: the backbone's; None for a full checkpoint, which is its own reward model.
        limits: what one batch may hold.
        why: how it computes, and why not otherwise.
        room: bytes for prompts that were computed in earlier batches; with 0 none is kept.
    """

    streams = 1
    failure = None

    def __init__(
        self,
        backbone: Any,
        readouts: Mapping[str, ReadOut],
        gate: Gate | None,
        limits: Limits,
        why: str = "padded, each shared prompt once",
        room: int = 0,
    ) -> None:
        self.limits = limits
        self.why = why
        self._backbone = backbone.eval()
        self._backbone.config.use_cache = False
        self._readouts = readouts
        self._gate = gate
        self._shares = can_share_prompts(self._backbone)
        self._memory = PromptMemory(room)

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Rewards of each row, in order. ``cached`` is the prompt's length where it was computed for another row.

        Raises:
            Unprocessable: this one text does not fit the device.
            Unavailable: the accelerator has failed for good.
        """
        with mortal(), lonely(rows), torch.inference_mode():
            return self._run(rows, NOTHING if fresh else self._memory)

    def close(self) -> None:
        """Free the weights."""
        del self._backbone, self._readouts, self._gate, self._memory

    def _run(self, rows: Sequence[Row], memory: PromptMemory) -> list[Rewards | TureenError]:
        """Rows of a known prompt, or of one that they share, go on from it, the others run whole; either way those of
        like length together.
        """
        known = {each: found for each in map(prompt, rows) if (found := memory.get(each)) is not None}
        forked = shared(rows, known) if self._shares else {}
        pasts = known | self._compute([each for each in dict.fromkeys(forked.values()) if each not in known], memory)
        values: dict[int, tuple[float, ...]] = {}
        for picks in alike({index: len(rows[index].ids) - rows[index].shared for index in forked}):
            values |= zip(picks, self._branches([(rows[index], pasts[forked[index]]) for index in picks]), strict=True)
        for picks in alike({index: len(row.ids) for index, row in enumerate(rows) if index not in forked}):
            values |= zip(picks, self._whole([rows[index] for index in picks], memory), strict=True)
        spared = cached(rows, forked, known)
        return [Rewards(values[index], spared[index]) for index in range(len(rows))]

    def _compute(self, prompts: Sequence[Prompt], memory: PromptMemory) -> dict[Prompt, Past]:
        """Prompts, each once."""
        if not prompts:
            return {}
        ids, mask = pad([ids for ids, _ in prompts], "right", self._backbone.device)
        self._weigh([blend for _, blend in prompts])
        hidden, cache = self._forward(ids, mask)
        found = {each: past(hidden, cache, row, slice(len(each[0]))) for row, each in enumerate(prompts)}
        for each, computed in found.items():
            memory.put(each, computed)
        return found

    def _whole(self, rows: Sequence[Row], memory: PromptMemory) -> list[tuple[float, ...]]:
        """Every text by itself."""
        ids, mask = pad([row.ids for row in rows], "right", self._backbone.device)
        self._weigh([row.blend for row in rows])
        if not (memory.room and self._shares):
            return self._read(rows, self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        hidden, cache = self._forward(ids, mask)
        for index, row in enumerate(rows):
            if row.shared:
                memory.put(prompt(row), past(hidden, cache, index, slice(row.shared)))
        return self._read(rows, hidden, mask)

    def _branches(self, rows: Sequence[tuple[Row, Past]]) -> list[tuple[float, ...]]:
        """Answers on copies of their prompts' keys and values: the same numbers as whole texts."""
        hidden, mask, cache = laid([each for _, each in rows])
        ids, own = pad([row.ids[row.shared :] for row, _ in rows], "right", self._backbone.device)
        mask = torch.cat([mask, own], dim=1)
        self._weigh([row.blend for row, _ in rows])
        answers, _ = self._forward(ids, mask, cache)
        return self._read([row for row, _ in rows], torch.cat([hidden, answers], dim=1), mask)

    def _forward(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None) -> tuple[Tensor, DynamicCache]:
        """Hidden states of these tokens after what the cache holds; ``mask`` covers both."""
        cache = DynamicCache() if cache is None else cache
        places = positions(mask)[:, -ids.shape[1] :]
        out = self._backbone(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state, cache

    def _weigh(self, blends: Sequence[Weights]) -> None:
        if self._gate is not None:
            self._gate.set([(blend, "delta") for blend in blends])

    def _read(self, rows: Sequence[Row], hidden: Tensor, mask: Tensor) -> list[tuple[float, ...]]:
        def pooled(picks: list[int], like: ReadOut) -> Tensor:
            return pool_hidden_states(hidden[picks], mask[picks], like.pooling, like.eos_appended)

        return read(rows, self._readouts, pooled)
