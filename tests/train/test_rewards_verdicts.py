"""Yes or no as one logit: the loss by hand and by finite differences, and how logits tell the two apart."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tureen_train.rewards.verdicts import compute_auc, sign_logits, sum_verdict_losses

NAN = math.nan


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_loss_is_that_of_the_labelled_cells() -> None:
    logits, labels = double(2.0, -1.0, 0.5, NAN), double(1.0, 0.25, NAN, NAN)
    expected = math.log1p(math.exp(-2)) + 0.25 * math.log1p(math.exp(1)) + 0.75 * math.log1p(math.exp(-1))
    assert float(sum_verdict_losses(logits, labels)) == pytest.approx(expected, abs=1e-14)
    assert float(sum_verdict_losses(logits, double(NAN, NAN, NAN, NAN))) == 0


def test_it_is_the_cross_entropy_over_two_tokens() -> None:
    both = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 0, 0, 1, 1])
    ours = sum_verdict_losses(both[:, 0] - both[:, 1], 1.0 - target.double())
    assert float(ours) == pytest.approx(float(functional.cross_entropy(both, target, reduction="sum")), abs=1e-12)


def test_its_gradient_is_that_of_finite_differences() -> None:
    logits = double(2.0, -30.0, 0.3, 7.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sum_verdict_losses(x, double(1.0, 0.0, 0.4, NAN)), (logits,))
    sum_verdict_losses(logits, double(NAN, NAN, NAN, NAN)).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, 0, 0, 0]


def test_extreme_logits_stay_finite() -> None:
    """The published outcome model takes ln(σ + 1e-10) in bfloat16."""
    assert float(sum_verdict_losses(torch.tensor([-200.0]), torch.tensor([1.0]))) == 200
    with pytest.raises(ValueError, match=r"logits \[2\] and labels \[1\]"):
        sum_verdict_losses(torch.zeros(2), torch.zeros(1))


def test_right_verdicts_are_positive() -> None:
    assert sign_logits([[2.0, -1.0], [3.0, NAN]], [[1.0, 0.2], [0.5, NAN]]).tolist() == [2.0, 1.0]
    assert sign_logits([-2.0], [1.0]).tolist() == [-2.0]


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    logits, labels = np.round(rng.normal(size=60)), rng.integers(0, 2, 60).astype(float)
    labels[:5] = NAN
    pairs = [
        (yes > no) + 0.5 * (yes == no)
        for yes, one in zip(logits, labels, strict=True)
        for no, other in zip(logits, labels, strict=True)
        if one == 1 and other == 0
    ]
    assert compute_auc(logits, labels) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert compute_auc([3, 2, 1], [1, 1, 0]) == 1
    assert math.isnan(compute_auc([3, 2], [1, 1]))
