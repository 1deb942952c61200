"""Prompts in a packed forward pass: attention also sees known prompts, and new prompts are copied to be kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.on_transformers.prompt_memory import ComputedPrompt


class PackedPromptStates:
    """The keys and values of known and new prompts in one forward pass.

    Args:
        known: the known prompts, in the order of the packed batch.
        new: maps each new prompt that is to be kept to its places in the sequence.
    """

    def __init__(self, known: Sequence[ComputedPrompt] = (), new: Mapping[Prompt, slice] | None = None) -> None:
        self._known = known
        self._new = new or {}
        self._states: dict[Prompt, list[tuple[Tensor, Tensor]]] = {each: [] for each in self._new}
        self._layer = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the known prompts' keys and values to those of the next layer, ``[T, H_kv, D]`` each."""
        for prompt, tokens in self._new.items():
            states = key[tokens].transpose(0, 1), value[tokens].transpose(0, 1)
            self._states[prompt].append((states[0].clone(), states[1].clone()))
        appended = [each.states[self._layer] for each in self._known]
        self._layer += 1
        if not appended:
            return key, value
        keys, values = ([states[part].transpose(0, 1) for states in appended] for part in (0, 1))
        return torch.cat([key, *keys]), torch.cat([value, *values])

    def collect_prompts(self, hidden: Tensor) -> dict[Prompt, ComputedPrompt]:
        """Collect the new prompts after the pass, whose hidden states are ``[T, H]``."""
        return {
            prompt: ComputedPrompt(hidden[tokens].clone(), tuple(self._states[prompt]))
            for prompt, tokens in self._new.items()
        }
