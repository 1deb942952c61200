"""Losses of direct preference optimisation on gaps of implicit rewards. Pure.

The implicit reward of an answer is β (log π − log π_ref), and the gap z of a pair is the better answer's minus the
worse one's.
"""

from torch import Tensor
from torch.nn.functional import softplus


def compute_preference_losses(gaps: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute −(1 − ε) ln σ(z) − ε ln σ(−z) of each pair (arXiv 2305.18290, equation 7; ε: arXiv 2406.02900's cDPO).

    Args:
        gaps: ``[P]``, z.
        label_smoothing: ε, how likely a label is wrong.

    Returns:
        ``[P]``.
    """
    return (1 - label_smoothing) * softplus(-gaps) + label_smoothing * softplus(gaps)


def compute_cap_losses(gaps: Tensor, caps: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute PCRM's −(1 − ε) ln σ(δ − z) − ε ln σ(z − δ) of each pair (arXiv 2404.00978).

    Args:
        gaps: ``[P]``, z.
        caps: ``[P]``, δ. They are constants: they get no gradient.
        label_smoothing: ε.

    Returns:
        ``[P]``.
    """
    return compute_preference_losses(caps.detach() - gaps, label_smoothing)
