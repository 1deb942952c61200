"""A cache of computed prompts, since training loops send a prompt's answers in several requests and batches."""

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
    """A computed prompt of T tokens.

    Attributes:
        hidden: hidden states ``[T, H]`` after the final norm.
        states: the keys and values of every layer, ``[heads, T, d]`` each.
    """

    hidden: Tensor
    states: tuple[tuple[Tensor, Tensor], ...]

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes."""
        return self.hidden.nbytes + sum(keys.nbytes + values.nbytes for keys, values in self.states)


def copy_prompt(hidden: Tensor, cache: DynamicCache, row: int, tokens: slice) -> ComputedPrompt:
    """Copy the prompt of one row out of a batch that was computed.

    Args:
        hidden: the batch's hidden states ``[B, T, H]``.
        cache: the batch's keys and values.
        row: the row's index.
        tokens: the places of the prompt's tokens in the row.
    """
    layers: list[Any] = cache.layers
    states = ((layer.keys[row, :, tokens].clone(), layer.values[row, :, tokens].clone()) for layer in layers)
    return ComputedPrompt(hidden[row, tokens].clone(), tuple(states))


def join_prompts(prompts: Sequence[ComputedPrompt]) -> tuple[Tensor, Tensor, DynamicCache]:
    """Join computed prompts to a batch that is padded on the left, to be continued.

    Returns:
        The hidden states ``[B, T, H]``, the mask ``[B, T]``, and the cache.
    """
    hidden = _pad_left([each.hidden for each in prompts])
    mask = _pad_left([each.hidden.new_ones(len(each.hidden), dtype=torch.long) for each in prompts])
    cache = DynamicCache()
    for number in range(len(prompts[0].states)):
        keys, values = ([each.states[number][part].transpose(0, 1) for each in prompts] for part in (0, 1))
        cache.update(_pad_left(keys).transpose(1, 2), _pad_left(values).transpose(1, 2), number)
    return hidden, mask, cache


def _pad_left(sequences: list[Tensor]) -> Tensor:
    """Pad sequences ``[T, …]`` with zeros on the left to ``[B, T, …]``."""
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_side="left")


class PromptMemory:
    """Keeps the most recently used prompts.

    Args:
        capacity: the memory for prompts, in bytes; with 0 no prompt is kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._used = 0
        self._prompts: OrderedDict[Prompt, ComputedPrompt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prompts)

    def get(self, prompt: Prompt) -> ComputedPrompt | None:
        """Return a prompt that is kept, else None."""
        found = self._prompts.get(prompt)
        if found is not None:
            self._prompts.move_to_end(prompt)
        return found

    def put(self, prompt: Prompt, computed: ComputedPrompt) -> None:
        """Keep a prompt, and drop the least recently used ones if the memory is full."""
        if computed.size > self.capacity or prompt in self._prompts:
            return
        self._prompts[prompt] = computed
        self._used += computed.size
        while self._used > self.capacity:
            _, dropped = self._prompts.popitem(last=False)
            self._used -= dropped.size


NO_MEMORY = PromptMemory(0)
