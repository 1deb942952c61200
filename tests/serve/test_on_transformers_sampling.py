"""One row's draw against OpenAI's formulas and against frequencies."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TopPLogitsWarper

from tureen_serve.runtimes.contract import Sampling
from tureen_serve.runtimes.on_transformers.sampling import Sampler, select_nucleus

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def sampler(**changes: object) -> Sampler:
    return Sampler(Sampling(**{"max_tokens": 8, "seed": 1, **changes}), CPU)  # type: ignore[arg-type]


def draws(drawing: Sampler, logits: Tensor, count: int) -> list[int]:
    return [int(drawing.draw(logits)) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest_token() -> None:
    assert draws(sampler(temperature=0), LOGITS, 5) == [0] * 5


def test_the_coldest_temperatures_do_not_overflow() -> None:
    assert draws(sampler(temperature=1e-30), LOGITS * 1e4, 5) == [0] * 5


def test_a_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    flat = torch.zeros(1000)
    assert draws(sampler(), flat, 20) == draws(sampler(), flat, 20)
    assert draws(sampler(), flat, 20) != draws(sampler(seed=2), flat, 20)


def test_without_a_seed_draws_differ() -> None:
    flat = torch.zeros(100_000)
    assert draws(sampler(seed=None), flat, 8) != draws(sampler(seed=None), flat, 8)


@pytest.mark.parametrize("seed", [-1, 2**64, 0])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert draws(sampler(seed=seed), torch.zeros(1000), 5) == draws(sampler(seed=seed), torch.zeros(1000), 5)


def test_frequencies_are_those_of_the_tempered_distribution() -> None:
    found = Counter(draws(sampler(temperature=0.5), LOGITS, 4000))
    expected = (LOGITS / 0.5).softmax(-1)
    for token, probability in enumerate(expected.tolist()):
        assert found[token] / 4000 == pytest.approx(probability, abs=4 * math.sqrt(probability / 4000) + 1e-3)


def test_a_nucleus_holds_the_fewest_tokens_that_reach_top_p() -> None:
    # probabilities 0.644, 0.237, 0.087, 0.032
    assert set(draws(sampler(top_p=0.6), LOGITS, 300)) == {0}
    assert set(draws(sampler(top_p=0.7), LOGITS, 300)) == {0, 1}
    assert set(draws(sampler(top_p=1.0), LOGITS, 2000)) == {0, 1, 2, 3}


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 700), st.floats(0.01, 0.999), st.floats(0.1, 8), st.integers(0, 99))
def test_the_nucleus_is_transformers(size: int, top_p: float, spread: float, seed: int) -> None:
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * spread
    probabilities = logits.softmax(-1)[0]
    likely, tokens = select_nucleus(probabilities, top_p)
    expected = TopPLogitsWarper(top_p)(torch.zeros(1, 0, dtype=torch.long), logits)[0].isfinite().nonzero().flatten()
    border = probabilities.sort(descending=True).values.cumsum(-1)
    if (border - top_p).abs().min() > 1e-5:
        assert sorted(tokens.tolist()) == expected.tolist()
    assert torch.equal(likely, probabilities[tokens])


def test_a_flat_nucleus_reaches_beyond_the_likely_ones() -> None:
    _, tokens = select_nucleus(torch.full((1000,), 0.001), 0.9)
    assert len(tokens) == pytest.approx(900, abs=1)


def test_frequency_penalty_counts_and_presence_penalty_does_not() -> None:
    twice = sampler(temperature=0, frequency_penalty=0.6)
    twice.note(0)
    assert draws(twice, LOGITS, 1) == [0]
    twice.note(0)
    assert draws(twice, LOGITS, 1) == [1]
    once = sampler(temperature=0, presence_penalty=0.9)
    once.note(0)
    once.note(0)
    assert draws(once, LOGITS, 1) == [0]
    strong = sampler(temperature=0, presence_penalty=1.1)
    strong.note(0)
    assert draws(strong, LOGITS, 1) == [1]


def test_negative_penalties_favour_what_was_said() -> None:
    fond = sampler(temperature=0, frequency_penalty=-2)
    fond.note(3)
    fond.note(3)
    assert draws(fond, LOGITS, 1) == [3]


def test_a_bias_is_added_and_minus_a_hundred_bans() -> None:
    assert draws(sampler(temperature=0, logit_bias=((2, 2.5),)), LOGITS, 1) == [2]
    assert 0 not in draws(sampler(logit_bias=((0, -100.0),)), LOGITS, 200)


def test_the_logits_are_left_as_they_are() -> None:
    before = LOGITS.clone()
    drawing = sampler(temperature=0.7, top_p=0.9, frequency_penalty=1, logit_bias=((1, 3.0),))
    drawing.note(0)
    drawing.draw(LOGITS)
    assert torch.equal(LOGITS, before)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=8),
    st.lists(st.integers(0, 1), max_size=5),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(-5, 5),
)
def test_greedy_follows_openais_formula(
    logits: list[float], said: list[int], frequency: float, presence: float, bias: float
) -> None:
    drawing = sampler(temperature=0, frequency_penalty=frequency, presence_penalty=presence, logit_bias=((1, bias),))
    for token in said:
        drawing.note(token)
    expected = [
        value - said.count(token) * frequency - (token in said) * presence + (token == 1) * bias
        for token, value in enumerate(logits)
    ]
    (found,) = draws(drawing, torch.tensor(logits), 1)
    assert expected[found] == pytest.approx(max(expected), abs=1e-4)
