"""A cache of computed prompts, since training loops send a prompt's answers in several requests and batches."""

import itertools
import threading
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


class PromptStore:
    """The memory for prompts that all scorers of a process share. It keeps the most recently used ones.

    Args:
        capacity: the memory for prompts, in bytes; with 0 no prompt is kept.

    Attributes:
        capacity: as the argument.
        used: the bytes of the prompts that are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._prompts: OrderedDict[tuple[int, Prompt], ComputedPrompt] = OrderedDict()
        self._lock = threading.Lock()  # each scorer has its own thread

    def get(self, owner: int, prompt: Prompt) -> ComputedPrompt | None:
        """Return a prompt that is kept, else None."""
        with self._lock:
            found = self._prompts.get((owner, prompt))
            if found is not None:
                self._prompts.move_to_end((owner, prompt))
            return found

    def put(self, owner: int, prompt: Prompt, computed: ComputedPrompt) -> None:
        """Keep a prompt, and drop the least recently used ones if the memory is full."""
        with self._lock:
            if computed.size > self.capacity or (owner, prompt) in self._prompts:
                return
            self._prompts[owner, prompt] = computed
            self.used += computed.size
            self._shrink()

    def limit(self, capacity: int) -> None:
        """Change the capacity, and drop the least recently used prompts that have no room."""
        with self._lock:
            self.capacity = capacity
            self._shrink()

    def drop_all(self, owner: int) -> None:
        """Drop the prompts of one scorer."""
        with self._lock:
            for key in [key for key in self._prompts if key[0] == owner]:
                self._drop(key)

    def count(self, owner: int) -> int:
        """Count the prompts of one scorer."""
        with self._lock:
            return sum(key[0] == owner for key in self._prompts)

    def _shrink(self) -> None:
        while self.used > self.capacity:
            self._drop(next(iter(self._prompts)))

    def _drop(self, key: tuple[int, Prompt]) -> None:
        self.used -= self._prompts.pop(key).size


class PromptMemory:
    """The prompts of one scorer in the store that it shares with others.

    Args:
        store: the store.
    """

    _owners = itertools.count()

    def __init__(self, store: PromptStore) -> None:
        self._store = store
        self._owner = next(self._owners)

    def __len__(self) -> int:
        return self._store.count(self._owner)

    @property
    def capacity(self) -> int:
        """The memory of the store, in bytes; with 0 no prompt is kept."""
        return self._store.capacity

    def get(self, prompt: Prompt) -> ComputedPrompt | None:
        """Return a prompt that is kept, else None."""
        return self._store.get(self._owner, prompt)

    def put(self, prompt: Prompt, computed: ComputedPrompt) -> None:
        """Keep a prompt, and drop the least recently used ones of all scorers if the store is full."""
        self._store.put(self._owner, prompt, computed)

    def close(self) -> None:
        """Drop the prompts of this scorer."""
        self._store.drop_all(self._owner)


NO_STORE = PromptStore(0)
NO_MEMORY = PromptMemory(NO_STORE)
