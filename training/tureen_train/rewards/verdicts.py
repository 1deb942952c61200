"""Binary verdicts as one logit: the loss with soft labels, and how well the logits separate the classes. Pure.

A NaN label is a missing label: its cell is ignored.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from tureen_train.measures.metrics import Array


def sum_verdict_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum −y ln σ(l) − (1 − y) ln(1 − σ(l)) over the cells with a label, computed from the logits for precision.

    Args:
        logits: of any shape, float32.
        labels: of the same shape, 0 to 1, NaN where missing.

    Returns:
        A scalar; 0, with a gradient of 0, if there is no label.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)} must have one shape")
    known = ~torch.isnan(labels)
    kept = torch.where(known, logits, logits.new_zeros(()))  # a NaN times 0 is NaN
    losses = functional.binary_cross_entropy_with_logits(kept, labels.nan_to_num(0.0), reduction="none")
    return (losses * known).sum()


def sign_logits(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Flip the sign of logits whose label is 0, so that right verdicts are positive. Labels of ½ are left out.

    Returns:
        A vector; σ of it is the probability of the labelled class.
    """
    found, known = (np.asarray(each, dtype=np.float64).ravel() for each in (logits, labels))
    clear = ~np.isnan(known) & (known != 0.5)
    return np.asarray(np.where(known[clear] > 0.5, 1.0, -1.0) * found[clear])


def compute_auc(logits: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a random positive has a higher logit than a random negative.

    Ties count one half. NaN if there is no positive or no negative. Computed by midranks (Mann and Whitney, 1947).
    """
    found, known = (np.asarray(each, dtype=np.float64).ravel() for each in (logits, labels))
    yes, no = found[known > 0.5], found[known < 0.5]
    if not yes.size or not no.size:
        return float("nan")
    ordered = np.sort(no)
    below = np.searchsorted(ordered, yes, side="left") + np.searchsorted(ordered, yes, side="right")
    return float(below.mean() / 2 / no.size)
