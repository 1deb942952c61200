"""Score a batch as one packed sequence: without padding, and with each shared prompt computed once.

On a GPU the layers are compiled once for batches of any size: the lengths of the segments are data of one operator, and
other sizes are symbolic. So no batch is padded for torch.compile, and none makes it compile again. On a CPU the prompts
of earlier batches are kept, and the last layer is computed only for the tokens that a head reads.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tureen.errors import TureenError
from tureen_core.heads import Pooling, find_readout_positions, pool_hidden_states
from tureen_core.packed.attention import NAME, run_packed
from tureen_core.packed.exactness import can_share_prompts, list_layers, make_sample, summarise_error
from tureen_core.packed.layout import PackedBatch, Prompt, SegmentEnds, find_edges, find_ends, pack_texts
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row
from tureen_serve.runtimes.on_transformers.accelerator import DeviceRuntime, translate_device_failure
from tureen_serve.runtimes.on_transformers.last_layer import wrap_last_mlp
from tureen_serve.runtimes.on_transformers.prompt_memory import NO_MEMORY, NO_STORE, PromptMemory, PromptStore
from tureen_serve.runtimes.on_transformers.prompt_states import PackedPromptStates
from tureen_serve.runtimes.on_transformers.rank_gate import RankGate
from tureen_serve.runtimes.on_transformers.release import release_weights
from tureen_serve.runtimes.on_transformers.shared_prompts import count_cached_tokens, find_shared_prompts, get_prompt
from tureen_serve.runtimes.readout import ReadOut, read_rewards, select_readout

ONE_TOKEN: set[Pooling] = {"last", "eos"}  # poolings that read one token of a text


class PackedScorer(DeviceRuntime):
    """A backbone for which ``find_packing_obstacle`` is None, and the reward models that use it.

    Args:
        backbone: a headless Hugging Face model. Its attention is replaced by packed attention.
        readouts: maps an adapter's name to its read-out.
        gate: the backbone's gate; None for a full checkpoint, which has no adapters.
        limits: the limits of one batch.
        compiler: torch.compile's backend for the layers; None to run them without. They also run without it if
            compiling fails.
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
        compiler: str | None = None,
        store: PromptStore = NO_STORE,
        base: object = None,
    ) -> None:
        super().__init__()
        self.limits = replace(limits, padded=False)
        self.description = "packed: no padding, each shared prompt once"
        self._shares = can_share_prompts(backbone)
        self._backbone = backbone.eval()
        self._backbone.config.use_cache = False
        self._backbone.set_attn_implementation(NAME)
        self._readouts = readouts
        self._gate = gate
        self._base = base
        self._memory = PromptMemory(store)
        self._last = None if compiler else wrap_last_mlp(list_layers(backbone), gate)
        if compiler is not None:
            self.description += self._compile(compiler)

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
        del self._backbone, self._readouts, self._gate, self._memory, self._base, self._last

    def _run(self, rows: Sequence[Row], memory: PromptMemory) -> list[Rewards | TureenError]:
        known = {each: found for each in map(get_prompt, rows) if (found := memory.get(each)) is not None}
        prompts = self._find_prompts(rows, known) if self._shares else {}
        packing = pack_texts(_repeat_single_token(rows), prompts, known)
        appended = [known[each] for each in packing.known]
        states = PackedPromptStates(appended, self._find_new_prompts(rows, packing, known)) if memory.capacity else None
        hidden = self._compute_hidden(packing, states, self._find_ends(rows, packing))
        for each, computed in states.collect_prompts(hidden).items() if states else ():
            memory.put(each, computed)
        hidden = torch.cat([hidden, *(prompt.hidden for prompt in appended)])
        values = read_rewards(rows, self._readouts, partial(_pool_rows, hidden, packing))
        return [Rewards(*each) for each in zip(values, count_cached_tokens(rows, prompts, known), strict=True)]

    def _find_prompts(self, rows: Sequence[Row], known: Container[Prompt]) -> dict[int, Prompt]:
        """Find the prompts that rows continue.

        A row whose reward is read at its prompt's last token is not among them: the last layer does not compute that
        token for a prompt that other rows continue.
        """
        found = find_shared_prompts(rows, known)
        return {index: each for index, each in found.items() if not self._reads_prompt(rows[index])}

    def _reads_prompt(self, row: Row) -> bool:
        readout = select_readout(self._readouts, row)
        return len(row.ids) - row.shared == 1 and readout.pooling == "last" and readout.eos_appended

    def _find_new_prompts(
        self, rows: Sequence[Row], packing: PackedBatch, known: Container[Prompt]
    ) -> dict[Prompt, slice]:
        """Find the places of the prompts that this batch computes and that are not known yet."""
        starts = packing.keys[find_edges(packing.reaches)[packing.segments]].tolist()
        return {
            get_prompt(row): slice(start, start + row.shared)
            for row, start in zip(rows, starts, strict=False)
            if row.shared and self._shares and get_prompt(row) not in known
        }

    def _find_ends(self, rows: Sequence[Row], packing: PackedBatch) -> SegmentEnds | None:
        """Find the tokens that the last layer must compute; None if it computes all."""
        poolings = {select_readout(self._readouts, row).pooling for row in rows}
        if self._last is None or not poolings <= ONE_TOKEN:
            return None
        return find_ends(packing, self._last.layer)

    def _compute_hidden(
        self, packing: PackedBatch, states: PackedPromptStates | None = None, ends: SegmentEnds | None = None
    ) -> Tensor:
        """Compute the hidden states ``[T, H]`` of a packed batch."""
        if self._gate is not None:
            self._gate.set_rows([(blend, "delta") for blend in packing.blends], packing.lengths)
        if self._last is not None:
            self._last.places = None if ends is None else ends.places
        return run_packed(self._backbone, packing, states, ends)

    def _compile(self, backend: str) -> str:
        """Compile the layers, and return the outcome as the end of a description."""
        layers = list_layers(self._backbone)
        try:
            for layer in layers:
                layer.compile(backend=backend, dynamic=True, fullgraph=True)
            with translate_device_failure(), torch.inference_mode():
                self._compute_hidden(make_sample(((next(iter(self._readouts)), 1.0),), self._shares)[1])
        except RuntimeError as error:
            for layer in layers:
                layer._compiled_call_impl = None
            return f", not compiled: {summarise_error(error)}"
        return ", compiled"


def _repeat_single_token(rows: Sequence[Row]) -> Sequence[Row]:
    """Repeat the row if the batch is a single token: torch.compile would compile again for a size of 1."""
    return [*rows, *rows] if [len(row.ids) for row in rows] == [1] else rows


def _pool_rows(hidden: Tensor, packing: PackedBatch, indices: Sequence[int], readout: ReadOut) -> Tensor:
    """Pool the hidden states of some rows to ``[n, H]``. Poolings of one token look up only that token."""
    index, mask = packing.find_texts(indices)
    pooling = readout.pooling
    if pooling in ONE_TOKEN:
        place = find_readout_positions(mask, pooling, readout.eos_appended).unsqueeze(1)
        index, mask, pooling = index.gather(1, place), mask.gather(1, place), "eos"
    return pool_hidden_states(hidden[index.to(hidden.device)], mask.to(hidden.device), pooling)
