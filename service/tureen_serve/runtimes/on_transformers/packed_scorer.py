"""Rewards from one packed sequence a batch: no padding, a prompt that rows share computed once, nothing but prefill.

On a GPU segments of any number and length run through one compiled layer: lengths are data of one operator and sizes
are symbolic, so no batch makes torch.compile work again, and none is padded for it. On a CPU prompts of earlier batches
are remembered, and the last layer is computed where it is read.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tureen.errors import TureenError
from tureen_core.heads import Pooling, find_readout_positions, pool_hidden_states
from tureen_core.packed.attention import NAME, run_packed
from tureen_core.packed.exactness import can_share_prompts, list_layers, make_sample, summarise_error
from tureen_core.packed.layout import PackedBatch, Prompt, SegmentEnds, find_edges, find_ends, pack_texts
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row
from tureen_serve.runtimes.on_transformers.accelerator import translate_device_failure, translate_out_of_memory
from tureen_serve.runtimes.on_transformers.last_layer import wrap_last_mlp
from tureen_serve.runtimes.on_transformers.prompt_memory import NO_MEMORY, PromptMemory
from tureen_serve.runtimes.on_transformers.prompt_states import PackedPromptStates
from tureen_serve.runtimes.on_transformers.rank_gate import RankGate
from tureen_serve.runtimes.on_transformers.shared_prompts import count_cached_tokens, find_shared_prompts, get_prompt
from tureen_serve.runtimes.readout import ReadOut, read_rewards, select_readout

SPARSE: set[Pooling] = {"last", "eos"}


class PackedScorer:
    """One backbone that ``find_packing_obstacle`` finds nothing against, and the reward models on it.

    Args:
        backbone: a headless Hugging Face model; from here on it attends in packed sequences only.
        readouts: adapter name → its head.
        gate: the backbone's; None for a full checkpoint, which is its own reward model.
        limits: what one batch may hold.
        compiler: torch.compile's backend for the layers; None to run them as they are, which is also what happens where
            compiling one fails.
        memory_bytes: bytes for prompts that were computed in earlier batches; with 0 none is kept.
    """

    threads = 1
    failure = None

    def __init__(
        self,
        backbone: Any,
        readouts: Mapping[str, ReadOut],
        gate: RankGate | None,
        limits: BatchLimits,
        compiler: str | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self.limits = replace(limits, padded=False)
        self.description = "packed: no padding, each shared prompt once"
        self._shares = can_share_prompts(backbone)
        self._backbone = backbone.eval()
        self._backbone.config.use_cache = False
        self._backbone.set_attn_implementation(NAME)
        self._readouts = readouts
        self._gate = gate
        self._memory = PromptMemory(memory_bytes)
        self._last = None if compiler else wrap_last_mlp(list_layers(backbone), gate)
        if compiler is not None:
            self.description += self._compile(compiler)

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Rewards of each row, in order. ``cached`` is the prompt's length where it was computed for another row.

        Raises:
            Unprocessable: this one text does not fit the device.
            Unavailable: the accelerator has failed for good.
        """
        with translate_device_failure(), translate_out_of_memory(rows), torch.inference_mode():
            return self._run(rows, NO_MEMORY if fresh else self._memory)

    def close(self) -> None:
        """Free the weights."""
        del self._backbone, self._readouts, self._gate, self._memory, self._last

    def _run(self, rows: Sequence[Row], memory: PromptMemory) -> list[Rewards | TureenError]:
        known = {each: found for each in map(get_prompt, rows) if (found := memory.get(each)) is not None}
        prompts = self._shared(rows, known) if self._shares else {}
        packing = pack_texts(_twice_if_lone(rows), prompts, known)
        behind = [known[each] for each in packing.known]
        recall = PackedPromptStates(behind, self._new(rows, packing, known)) if memory.capacity else None
        hidden = self._hidden(packing, recall, self._ends(rows, packing))
        for each, past in recall.pasts(hidden).items() if recall else ():
            memory.put(each, past)
        hidden = torch.cat([hidden, *(past.hidden for past in behind)])
        values = read_rewards(rows, self._readouts, lambda picks, like: _pooled(hidden, packing, picks, like))
        return [Rewards(*each) for each in zip(values, count_cached_tokens(rows, prompts, known), strict=True)]

    def _shared(self, rows: Sequence[Row], known: Container[Prompt]) -> dict[int, Prompt]:
        """The prompts that rows go on from. A row that is read at its prompt's end runs whole: the last layer leaves
        that state out where the prompt ran before other answers.
        """
        found = find_shared_prompts(rows, known)
        return {index: each for index, each in found.items() if not self._reads_prompt(rows[index])}

    def _reads_prompt(self, row: Row) -> bool:
        like = select_readout(self._readouts, row)
        return len(row.ids) - row.shared == 1 and like.pooling == "last" and like.eos_appended

    def _new(self, rows: Sequence[Row], packing: PackedBatch, known: Container[Prompt]) -> dict[Prompt, slice]:
        """Where the prompts stand that this batch computes."""
        starts = packing.keys[find_edges(packing.reaches)[packing.segments]].tolist()
        return {
            get_prompt(row): slice(start, start + row.shared)
            for row, start in zip(rows, starts, strict=False)
            if row.shared and self._shares and get_prompt(row) not in known
        }

    def _ends(self, rows: Sequence[Row], packing: PackedBatch) -> SegmentEnds | None:
        """Where the last layer is read, if that is in few places."""
        poolings = {select_readout(self._readouts, row).pooling for row in rows}
        if self._last is None or not poolings <= SPARSE:
            return None
        return find_ends(packing, self._last.layer)

    def _hidden(
        self, packing: PackedBatch, recall: PackedPromptStates | None = None, ends: SegmentEnds | None = None
    ) -> Tensor:
        """Hidden states ``[T, H]``."""
        if self._gate is not None:
            self._gate.set_rows([(blend, "delta") for blend in packing.blends], packing.lengths)
        if self._last is not None:
            self._last.places = None if ends is None else ends.places
        return run_packed(self._backbone, packing, recall, ends)

    def _compile(self, backend: str) -> str:
        """Compile the layers, one for all, and say how that went."""
        layers = list_layers(self._backbone)
        try:
            for layer in layers:
                layer.compile(backend=backend, dynamic=True, fullgraph=True)
            with translate_device_failure(), torch.inference_mode():
                self._hidden(make_sample(((next(iter(self._readouts)), 1.0),), self._shares)[1])
        except RuntimeError as error:
            for layer in layers:
                layer._compiled_call_impl = None
            return f", not compiled: {summarise_error(error)}"
        return ", compiled"


def _twice_if_lone(rows: Sequence[Row]) -> Sequence[Row]:
    """A token with no other beside it stands there twice: for a size of one the compiler would compile anew."""
    return [*rows, *rows] if [len(row.ids) for row in rows] == [1] else rows


def _pooled(hidden: Tensor, packing: PackedBatch, picks: Sequence[int], like: ReadOut) -> Tensor:
    """The hidden state of each of these rows, ``[n, H]``; of a row that is read in one place only that is looked up."""
    index, mask = packing.find_texts(picks)
    pooling = like.pooling
    if pooling in SPARSE:
        place = find_readout_positions(mask, pooling, like.eos_appended).unsqueeze(1)
        index, mask, pooling = index.gather(1, place), mask.gather(1, place), "eos"
    return pool_hidden_states(hidden[index.to(hidden.device)], mask.to(hidden.device), pooling)
