"""Prompts in a packed forward pass: attention gets the keys and values of known ones, those of new ones are kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.on_transformers.prompt_memory import ComputedPrompt


class PackedPromptStates:
    """For one pass.

    Args:
        known: the prompts behind the sequence, in order.
        fresh: the prompts to keep, and where they stand in the sequence.
    """

    def __init__(self, known: Sequence[ComputedPrompt] = (), fresh: Mapping[Prompt, slice] | None = None) -> None:
        self._known = known
        self._fresh = fresh or {}
        self._states: dict[Prompt, list[tuple[Tensor, Tensor]]] = {each: [] for each in self._fresh}
        self._layer = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[T, H_kv, D]`` of the next layer with those of the known prompts behind them."""
        for prompt, tokens in self._fresh.items():
            states = key[tokens].transpose(0, 1), value[tokens].transpose(0, 1)
            self._states[prompt].append((states[0].clone(), states[1].clone()))
        behind = [each.states[self._layer] for each in self._known]
        self._layer += 1
        if not behind:
            return key, value
        keys, values = ([states[part].transpose(0, 1) for states in behind] for part in (0, 1))
        return torch.cat([key, *keys]), torch.cat([value, *values])

    def pasts(self, hidden: Tensor) -> dict[Prompt, ComputedPrompt]:
        """What is to be kept, after the pass that gave these hidden states ``[T, H]``."""
        return {
            prompt: ComputedPrompt(hidden[tokens].clone(), tuple(self._states[prompt]))
            for prompt, tokens in self._fresh.items()
        }
