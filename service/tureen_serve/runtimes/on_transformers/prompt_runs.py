"""Run the prompts of texts that join a batch. Equal prompts under equal gates run once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tureen_serve.runtimes.on_transformers.cache_rows import CacheRows
from tureen_serve.runtimes.on_transformers.prompt_reading import read_prompts
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture, RankGate
from tureen_serve.runtimes.on_transformers.running_text import RunningText

Prompts = list[tuple[tuple[int, ...], Mixture]]


class PromptRuns:
    """Runs prompts, and appends a row for each of their texts to the batch.

    Args:
        model: a Hugging Face causal model with the experts attached.
        gate: the model's gate.
        rows: the batch.
    """

    def __init__(self, model: Any, gate: RankGate, rows: CacheRows) -> None:
        self._model, self._gate, self._rows = model, gate, rows

    def prefill(self, joining: Sequence[RunningText]) -> Tensor:
        """Run the prompts of new texts, and return the logits ``[B, V]`` of their first tokens."""
        prompts, owners = self._list_prompts(joining)
        self._gate.set_rows([mixture for _, mixture in prompts])
        return self._rows.prefill([ids for ids, _ in prompts], owners)

    def read(self, joining: Sequence[RunningText]) -> Tensor:
        """Run prompts as :meth:`prefill` does, and give each text the log-probabilities of its prompt's tokens."""
        prompts, owners = self._list_prompts(joining)
        top = max(running.job.sampling.prompt_logprobs or 0 for running in joining)
        read = read_prompts(self._model, self._gate, prompts, top)
        chosen = torch.tensor(owners, device=read.mask.device)
        read.cache.batch_select_indices(chosen)
        self._rows.append(read.cache, read.mask[chosen])
        for running, owner in zip(joining, owners, strict=True):
            running.readings = read.readings[owner]
        return read.logits[chosen]

    def _list_prompts(self, joining: Sequence[RunningText]) -> tuple[Prompts, list[int]]:
        """List the different prompts of new texts, and for each text the index of its own."""
        if self._rows.torn:
            raise MemoryError("no row can join before the others have left")
        prompts: dict[tuple[tuple[int, ...], Mixture], int] = {}
        owners = [prompts.setdefault((running.ids, running.mixture), len(prompts)) for running in joining]
        return list(prompts), owners
