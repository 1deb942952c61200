"""Losses of reward training: pure functions on rewards, scores and groups.

Rows are the answers of a batch; ``group[i]`` is the number of the prompt that row i answers. There are no padding rows.
A row with a NaN score takes part in no comparison.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def find_comparable(scores: Tensor, group: Tensor, texts: Tensor | None = None) -> Tensor:
    """Find the comparable pairs: ``[M, M]``, true where i and j answer the same prompt and i has the higher score.

    Args:
        scores: ``[M]``, larger is better. Ties and NaN make no pair.
        group: ``[M]``, prompt numbers.
        texts: ``[M]``, numbers of the texts. Rows of one text, as after a cut, make no pair.
    """
    found = (group[:, None] == group[None, :]) & (scores[:, None] > scores[None, :])
    return found if texts is None else found & (texts[:, None] != texts[None, :])


def compute_ranking_loss(rewards: Tensor, scores: Tensor, group: Tensor) -> Tensor:
    """DSP's ranking loss over N answers (arXiv 2309.03126): mean over comparable pairs of −ln σ(r_better − r_worse).

    The mean is over all pairs of the batch, so a prompt with more answers weighs more. Ties are ignored. With two
    answers to each prompt it is Bradley-Terry's loss.

    Args:
        rewards: ``[M]`` float32.
        scores: ``[M]``.
        group: ``[M]``.

    Returns:
        A scalar; 0, with a gradient of 0, if no pair is comparable.
    """
    return sum_ranking_losses(rewards, scores, group) / find_comparable(scores, group).sum().clamp(min=1)


def sum_ranking_losses(rewards: Tensor, scores: Tensor, group: Tensor, texts: Tensor | None = None) -> Tensor:
    """:func:`compute_ranking_loss` before its division: the sum over :func:`find_comparable` pairs."""
    if rewards.ndim != 1 or rewards.shape != scores.shape or rewards.shape != group.shape:
        shapes = [list(each.shape) for each in (rewards, scores, group)]
        raise ValueError(f"rewards, scores and group must be three vectors of one length, not {shapes}")
    gaps = rewards[:, None] - rewards[None, :]
    return (functional.softplus(-gaps) * find_comparable(scores, group, texts)).sum()


def compute_imitation_loss(nll: Tensor, keep: Tensor) -> Tensor:
    """DSP's language-model loss: the mean of ``nll [M]`` over the texts that ``keep [M]`` marks; 0 if it marks none."""
    return sum_imitation_losses(nll, keep) / keep.sum().clamp(min=1)


def sum_imitation_losses(nll: Tensor, keep: Tensor) -> Tensor:
    """:func:`compute_imitation_loss` before its division."""
    return (nll * keep.to(nll.dtype)).sum()


def normalise_scores(scores: Sequence[float]) -> list[float]:
    """Divide by the largest score, s / (max s + 1e-5), as DSP does before it compares with the imitation threshold.

    If the largest score is not positive, all become 0, since DSP's division grows without bound there. NaN stays NaN.
    """
    known = [score for score in scores if score == score]
    top = max(known, default=0.0)
    if top <= 0:
        return [score * 0.0 for score in scores]
    return [score / (top + 1e-5) for score in scores]
