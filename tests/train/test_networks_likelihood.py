"""Likelihood of tokens against numbers by hand."""

import pytest
import torch

from tureen_train.networks.likelihood import compute_token_nll


def test_token_likelihood_counts_the_wanted_tokens_only() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    counted = torch.tensor([[True, True, False, True, True], [False, False, False, False, True]])
    logp = torch.log_softmax(logits, -1)
    first = [-logp[0, t - 1, ids[0, t]].item() for t in (1, 3, 4)]
    second = -logp[1, 3, ids[1, 4]].item()
    found = compute_token_nll(logits, ids, counted)
    assert found.tolist() == pytest.approx([sum(first) / 3, second], rel=1e-5)


def test_a_text_without_wanted_tokens_weighs_nothing() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    nothing = torch.tensor([[True, False, False], [False, False, False]])  # the first token is never predicted
    found = compute_token_nll(logits, torch.zeros(2, 3, dtype=torch.long), nothing)
    assert found.tolist() == [0, 0]
    found.sum().backward()
    assert not bool(logits.grad is None or logits.grad.any())


def test_likelihood_is_computed_in_float32_from_half_precision() -> None:
    logits = torch.tensor([[[30.0, 0.0], [0.0, 0.0]]], dtype=torch.bfloat16)
    found = compute_token_nll(logits, torch.tensor([[0, 1]]), torch.tensor([[True, True]]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(30.0)
