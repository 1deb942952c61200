"""Draws of tokens against distributions computed by hand and in float64."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from tureen_train.config import Sampling
from tureen_train.policies.rollouts.draws import TokenDrawer, draw_tokens, make_uniforms

END = 3


def drawer(uniforms: torch.Tensor, known: int = 4, **changes: Any) -> TokenDrawer:
    return TokenDrawer(Sampling(**{"count": 1, **changes}), uniforms, [END], known)


def chosen(scores: torch.Tensor) -> list[int]:
    """The tokens of one-hot scores: the only finite one of each row."""
    assert scores.isfinite().sum(1).tolist() == [1] * len(scores)
    return scores.argmax(1).tolist()


def test_a_token_is_drawn_where_the_sum_of_probabilities_passes_the_random_number() -> None:
    scores = torch.tensor([[0.2, 0.3, 0.5]]).log().expand(6, 3)
    uniforms = torch.tensor([0.0, 0.199, 0.201, 0.499, 0.501, 1 - 2**-53], dtype=torch.float64)
    assert draw_tokens(scores, uniforms).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_without_probability_is_never_drawn() -> None:
    scores = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(3, 5)
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw_tokens(scores, uniforms).tolist() == [1, 3, 3]


def test_drawn_tokens_have_the_probabilities_of_the_softmax() -> None:
    scores = torch.randn(7, generator=torch.Generator().manual_seed(1)) * 2
    uniforms = torch.cat([make_uniforms(0, f"file:{line}", 0, 50) for line in range(400)])
    drawn = draw_tokens(scores.expand(len(uniforms), 7), uniforms)
    expected = scores.double().softmax(0).numpy() * len(uniforms)
    assert chisquare(torch.bincount(drawn, minlength=7).numpy(), expected).pvalue > 0.01


def test_random_numbers_belong_to_the_seed_the_prompt_and_the_number() -> None:
    first = make_uniforms(1, "a:1", 0, 8)
    assert first.tolist() == make_uniforms(1, "a:1", 0, 8).tolist()
    assert first.tolist()[:3] == make_uniforms(1, "a:1", 0, 3).tolist()
    others = [make_uniforms(2, "a:1", 0, 8), make_uniforms(1, "a:2", 0, 8), make_uniforms(1, "a:1", 1, 8)]
    assert all((first != other).all() for other in others)
    assert first.dtype is torch.float64


def test_the_likeliest_token_is_taken_at_temperature_zero() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 3.0, 2.0, 9.0]])
    assert chosen(drawer(torch.full((2, 4), 0.999), temperature=0)(torch.zeros(2, 0), scores)) == [1, 3]


def test_temperature_divides_the_logits_before_the_draw() -> None:
    scores = torch.tensor([[2.0, 0.0, 0.0, -math.inf]])
    probabilities = [math.exp(4) / (math.exp(4) + 2), math.exp(2) / (math.exp(2) + 2)]
    middle = torch.full((1, 4), sum(probabilities) / 2, dtype=torch.float64)
    assert chosen(drawer(middle, temperature=0.5)(torch.zeros(1, 0), scores)) == [0]
    assert chosen(drawer(middle, temperature=1.0)(torch.zeros(1, 0), scores)) == [1]


@pytest.mark.parametrize(("cut", "kept"), [({"top_k": 2}, {1, 2}), ({"top_p": 0.6}, {1, 2}), ({"top_p": 0.4}, {1})])
def test_top_k_and_top_p_leave_the_likeliest_tokens(cut: dict[str, Any], kept: set[int]) -> None:
    scores = torch.tensor([[0.2, 0.45, 0.25, 0.1]]).log().expand(200, 4)
    uniforms = torch.linspace(0, 1 - 1e-9, 200, dtype=torch.float64).unsqueeze(1)
    assert set(chosen(drawer(uniforms, **cut)(torch.zeros(200, 0), scores))) == kept


def test_no_end_token_is_drawn_before_the_least_number_of_tokens() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0, 9.0]])
    three = drawer(torch.full((1, 4), 0.5, dtype=torch.float64), min_tokens=3)
    drawn = [chosen(three(torch.zeros(1, step), scores))[0] for step in range(3)]
    assert END not in drawn[:2]
    assert drawn[2] == END


def test_ids_that_the_tokenizer_does_not_know_are_never_drawn() -> None:
    scores = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    for temperature in (0, 1):
        two = drawer(torch.full((1, 1), 0.9, dtype=torch.float64), known=2, temperature=temperature)
        assert chosen(two(torch.zeros(1, 0), scores))[0] < 2


def test_log_probabilities_are_the_models_own() -> None:
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    cold = drawer(torch.full((3, 2), 0.3, dtype=torch.float64), temperature=0.3, top_k=2, min_tokens=2)
    drawn = chosen(cold(torch.zeros(3, 0), scores))
    wanted = scores.double().log_softmax(1)[torch.arange(3), drawn]
    torch.testing.assert_close(cold.logprobs[0].double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_logits_that_are_not_finite_end_the_run(fault: float) -> None:
    with pytest.raises(FloatingPointError, match="learning_rate"):
        drawer(torch.zeros(1, 1))(torch.zeros(1, 0), torch.tensor([[0.0, fault, 0.0, 0.0]]))


@pytest.mark.parametrize("size", [127, 128, 5000])
def test_blocks_give_the_tokens_of_running_sums_in_float64(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(400, size, generator=generator) * 3
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -math.inf
    uniforms = torch.rand(400, generator=generator, dtype=torch.float64)
    sums = scores.double().softmax(-1).cumsum(-1)
    wanted = torch.searchsorted(sums, (uniforms * sums[:, -1]).unsqueeze(1), right=True).squeeze(1)
    drawn = draw_tokens(scores, uniforms)
    near = sums.gather(1, torch.minimum(drawn, wanted).unsqueeze(1)).squeeze(1) - uniforms
    assert ((drawn == wanted) | (near.abs() < 1e-6)).all()
    assert scores.gather(1, drawn.unsqueeze(1)).isfinite().all()


def test_the_largest_random_number_draws_the_last_token_that_has_a_probability() -> None:
    scores = torch.randn(300, 1000, generator=torch.Generator().manual_seed(3))
    scores[:, 900:] = -math.inf
    drawn = draw_tokens(scores, torch.full((300,), 1 - 2**-53, dtype=torch.float64))
    assert (drawn < 900).all()
    assert (drawn > 800).all()
