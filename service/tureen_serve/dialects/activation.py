"""Activations of raw scores as classifier servers apply them: the sigmoid of one, the softmax of several. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from tureen_core.calibration import compute_sigmoid


def label_scores(columns: Sequence[str], values: Sequence[float], raw: bool) -> list[dict[str, Any]]:
    """Return ``{score, label}`` for each column, the highest score first.

    Args:
        raw: return the scores without activation.
    """
    scores = values if raw else activate_scores(values)
    found = sorted(zip(values, scores, columns, strict=True), key=lambda each: each[0], reverse=True)
    return [{"score": score, "label": label} for _, score, label in found]


def activate_scores(values: Sequence[float]) -> list[float]:
    """Apply the sigmoid to a single score, or the softmax to several."""
    return [compute_sigmoid(values[0])] if len(values) == 1 else apply_softmax(values)


def apply_softmax(values: Sequence[float]) -> list[float]:
    """Return the softmax of some numbers."""
    largest = max(values, default=0.0)
    parts = [math.exp(value - largest) for value in values]
    whole = math.fsum(parts)
    return [part / whole for part in parts]
