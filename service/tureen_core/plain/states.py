"""The hidden states that plain transformers computes, for references that do not use the serving path."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tureen_core.plain.form import Reference
from tureen_core.plain.linear_heads import load_float32

Compute = Callable[[list[int], Tensor], Tensor]


def open_states(folder: Path, compute: Compute) -> Reference:
    """Open a backbone by plain transformers in float32.

    Args:
        compute: computes the rewards of a text from its ids and its hidden states ``[T, H]``.

    Raises:
        PlainError: a weight is missing.
    """
    from transformers import AutoModel

    model = load_float32(AutoModel, folder)

    def score(ids: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
            rewards: list[float] = compute(list(ids), states).tolist()
        return rewards

    return score
