"""Prompts that were computed lately: training loops scatter a prompt's answers over many requests and batches."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen_core.packed.layout import Prompt


@dataclass(frozen=True)
class ComputedPrompt:
    """One computed prompt of T tokens.

    Attributes:
        hidden: ``[T, H]`` after the final norm.
        states: keys and values of every layer, ``[heads, T, d]`` each.
    """

    hidden: Tensor
    states: tuple[tuple[Tensor, Tensor], ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.hidden.nbytes + sum(keys.nbytes + values.nbytes for keys, values in self.states)


def copy_prompt(hidden: Tensor, cache: DynamicCache, row: int, tokens: slice) -> ComputedPrompt:
    """One row's tokens of a batch that has run, copied out of it."""
    layers: list[Any] = cache.layers
    states = ((layer.keys[row, :, tokens].clone(), layer.values[row, :, tokens].clone()) for layer in layers)
    return ComputedPrompt(hidden[row, tokens].clone(), tuple(states))


def join_prompts(pasts: Sequence[ComputedPrompt]) -> tuple[Tensor, Tensor, DynamicCache]:
    """Hidden states ``[B, T, H]``, mask ``[B, T]`` and cache of a batch that goes on after these, padded left."""
    hidden = _left([each.hidden for each in pasts])
    mask = _left([each.hidden.new_ones(len(each.hidden), dtype=torch.long) for each in pasts])
    cache = DynamicCache()
    for number in range(len(pasts[0].states)):
        keys, values = ([each.states[number][part].transpose(0, 1) for each in pasts] for part in (0, 1))
        cache.update(_left(keys).transpose(1, 2), _left(values).transpose(1, 2), number)
    return hidden, mask, cache


def _left(sequences: list[Tensor]) -> Tensor:
    """``[T, …]`` each to ``[B, T, …]``, with zeros before what is short."""
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_side="left")


class PromptMemory:
    """The prompts used last, as many as there is room for.

    Args:
        capacity: bytes; with 0 nothing is kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held = 0
        self._pasts: OrderedDict[Prompt, ComputedPrompt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pasts)

    def get(self, prompt: Prompt) -> ComputedPrompt | None:
        """A prompt, if it is known."""
        found = self._pasts.get(prompt)
        if found is not None:
            self._pasts.move_to_end(prompt)
        return found

    def put(self, prompt: Prompt, computed: ComputedPrompt) -> None:
        """Keep a prompt, and let go of those that were not used for longest."""
        if computed.size > self.capacity or prompt in self._pasts:
            return
        self._pasts[prompt] = computed
        self._held += computed.size
        while self._held > self.capacity:
            _, gone = self._pasts.popitem(last=False)
            self._held -= gone.size


NO_MEMORY = PromptMemory(0)
