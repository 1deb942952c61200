"""Yes or no as one logit: the loss with soft labels, and how well logits tell the two apart. Pure.

A NaN label is no label: its cell counts in nothing.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from tureen_train.measures.metrics import Array


def sum_verdict_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over labelled cells of −y ln σ(l) − (1 − y) ln(1 − σ(l)), from the logits, so that no probability rounds.

    Args:
        logits: of any shape, float32.
        labels: of the same shape, 0 to 1, NaN where there is none.

    Returns:
        A scalar; 0, with a gradient of 0, where nothing is labelled.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)} must have one shape")
    known = ~torch.isnan(labels)
    kept = torch.where(known, logits, logits.new_zeros(()))  # a NaN times 0 is NaN
    losses = functional.binary_cross_entropy_with_logits(kept, labels.nan_to_num(0.0), reduction="none")
    return (losses * known).sum()


def sign_logits(logits: ArrayLike, labels: ArrayLike) -> Array:
    """The labelled logits, turned so that a right verdict is positive; a label of ½ is no verdict.

    Returns:
        A vector; a probability σ(·) of it is that of what the label says.
    """
    found, known = (np.asarray(each, dtype=np.float64).ravel() for each in (logits, labels))
    clear = ~np.isnan(known) & (known != 0.5)
    return np.asarray(np.where(known[clear] > 0.5, 1.0, -1.0) * found[clear])


def compute_auc(logits: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a random yes has a higher logit than a random no, ties one half.

    NaN where either is missing. By midranks (Mann and Whitney, 1947).
    """
    found, known = (np.asarray(each, dtype=np.float64).ravel() for each in (logits, labels))
    yes, no = found[known > 0.5], found[known < 0.5]
    if not yes.size or not no.size:
        return float("nan")
    ordered = np.sort(no)
    below = np.searchsorted(ordered, yes, side="left") + np.searchsorted(ordered, yes, side="right")
    return float(below.mean() / 2 / no.size)
