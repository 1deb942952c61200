"""What servers of classifiers make of raw scores: a sigmoid of one, a softmax of several, the best first. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from tureen_core.calibration import compute_sigmoid


def label_scores(columns: Sequence[str], values: Sequence[float], raw: bool) -> list[dict[str, Any]]:
    """``{score, label}`` for each column, the best first."""
    scores = values if raw else activate_scores(values)
    found = sorted(zip(values, scores, columns, strict=True), key=lambda each: each[0], reverse=True)
    return [{"score": score, "label": label} for _, score, label in found]


def activate_scores(values: Sequence[float]) -> list[float]:
    """Numbers in [0, 1] in the places of raw ones."""
    return [compute_sigmoid(values[0])] if len(values) == 1 else apply_softmax(values)


def apply_softmax(values: Sequence[float]) -> list[float]:
    """Positive numbers that sum to one."""
    largest = max(values, default=0.0)
    parts = [math.exp(value - largest) for value in values]
    whole = math.fsum(parts)
    return [part / whole for part in parts]
