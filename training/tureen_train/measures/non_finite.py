"""Numbers that are not finite: null in JSON, which has no NaN and no infinity; an error as a loss. Pure."""

import math
from typing import Any

import torch
from torch import Tensor


def replace_non_finite(value: Any) -> Any:
    """Return ``value`` with None in place of each float that is not finite, in nested dictionaries too."""
    if isinstance(value, dict):
        return {key: replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def require_finite(loss: Tensor) -> Tensor:
    """Return the loss if it is finite, so that no NaN reaches the weights.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
    """
    if not bool(torch.isfinite(loss)):
        raise FloatingPointError(
            f"the loss is {loss.item()}: lower optimisation.learning_rate, or check the scores of the data"
        )
    return loss
