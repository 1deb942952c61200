"""DPO's losses: published vectors, float64, and gradients against finite differences."""

import math

import pytest
import torch

from tureen_train.policies.losses import compute_cap_losses, compute_preference_losses


@pytest.mark.parametrize(("smoothing", "expected"), [(0.0, 0.563409), (0.1, 1.063409)])
def test_pcrms_vector(smoothing: float, expected: float) -> None:
    gap, cap = torch.tensor([0.3]), torch.tensor([5.0])
    found = compute_preference_losses(gap, smoothing) + compute_cap_losses(gap, cap, smoothing)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_each_pair_has_its_loss_in_float64(smoothing: float) -> None:
    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    gaps, caps = [-3.0, 0.0, 0.3, 7.0], [5.0, 4.5, 0.1, 20.0]
    found = compute_preference_losses(torch.tensor(gaps, dtype=torch.float64), smoothing)
    capped = compute_cap_losses(
        torch.tensor(gaps, dtype=torch.float64), torch.tensor(caps, dtype=torch.float64), smoothing
    )
    for place, (z, delta) in enumerate(zip(gaps, caps, strict=True)):
        plain = -(1 - smoothing) * log_sigmoid(z) - smoothing * log_sigmoid(-z)
        cap = -(1 - smoothing) * log_sigmoid(delta - z) - smoothing * log_sigmoid(z - delta)
        assert float(found[place]) == pytest.approx(plain, abs=1e-12)
        assert float(capped[place]) == pytest.approx(cap, abs=1e-12)


def test_gradients_are_finite_differences_and_caps_have_none() -> None:
    gaps = torch.tensor([-3.0, 0.3, 7.0], dtype=torch.float64, requires_grad=True)
    caps = torch.tensor([5.0, 0.1, 20.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: compute_preference_losses(z, 0.1), (gaps,))
    assert torch.autograd.gradcheck(lambda z: compute_cap_losses(z, caps.detach(), 0.1), (gaps,))
    compute_cap_losses(gaps, caps).sum().backward()
    assert caps.grad is None


def test_far_gaps_overflow_nothing() -> None:
    gaps = torch.tensor([-1e4, 1e4])
    assert compute_preference_losses(gaps).tolist() == [1e4, 0.0]


def test_the_loss_is_least_at_half_the_cap() -> None:
    gaps = torch.linspace(0, 4.5, 91)
    total = compute_preference_losses(gaps) + compute_cap_losses(gaps, torch.full_like(gaps, 4.5))
    assert float(gaps[total.argmin()]) == pytest.approx(2.25, abs=1e-6)
    assert float(total.min()) == pytest.approx(0.200413, abs=1e-6)
