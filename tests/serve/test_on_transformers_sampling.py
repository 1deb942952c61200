"""One row's draw against OpenAI's formulas and against frequencies."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tureen_serve.runtimes.on_transformers.sampling import Sampler, select_nucleus
from tureen_serve.runtimes.sampling_fields import Sampling

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


# --------------------------------------------------------------------------- the order of all fields, in float64


def weigh_as_vllm(logits: Tensor, prompt: list[int], said: list[int], wants: Sampling) -> NDArray[np.float64]:
    """The probabilities of vLLM's documented order, token by token in float64. None is near a border."""
    scores = logits.double().numpy().copy()
    for token, bias in wants.logit_bias:
        scores[token] += bias
    for token in {*prompt, *said}:
        scores[token] *= 1 / wants.repetition_penalty if scores[token] > 0 else wants.repetition_penalty
    for token in set(said):
        scores[token] -= said.count(token) * wants.frequency_penalty + wants.presence_penalty
    scores /= wants.temperature
    weights = np.exp(scores - scores.max())
    kept = weights >= wants.min_p
    if wants.top_k:
        kept &= scores >= np.sort(scores)[-min(wants.top_k, len(scores))]
    weights = np.where(kept, weights, 0)
    weights /= weights.sum()
    order = np.argsort(-weights)
    before = np.cumsum(weights[order]) - weights[order]
    weights[order[before >= wants.top_p]] = 0
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def weigh_here(logits: Tensor, prompt: list[int], said: list[int], wants: Sampling) -> NDArray[np.float64]:
    drawing = Sampler(wants, CPU, prompt)
    for token in said:
        drawing.note(token)
    likely, tokens = select_nucleus(drawing.weigh(logits), wants.top_p)
    found = np.zeros(len(logits))
    found[tokens.numpy()] = (likely / likely.sum()).double().numpy()
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0, 1, 2, 5, 40, 999]),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.sampled_from([0.5, 1.0, 1.3, 2.0]),
    st.sampled_from([0.0, 0.7, -1.0]),
    st.sampled_from([0.4, 1.0, 1.7]),
    st.sampled_from([0.3, 0.9, 1.0]),
)
def test_all_fields_together_follow_vllms_order(
    seed: int, top_k: int, min_p: float, repetition: float, penalty: float, temperature: float, top_p: float
) -> None:
    random = np.random.default_rng(seed)
    logits = torch.tensor(random.normal(0, 3, 60), dtype=torch.float32)
    prompt, said = ([int(each) for each in random.integers(0, 60, count)] for count in (12, 9))
    wants = Sampling(
        max_tokens=1,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition,
        presence_penalty=penalty,
        frequency_penalty=penalty / 2,
        logit_bias=((3, 1.5), (7, -4.0)),
    )
    expected, found = weigh_as_vllm(logits, prompt, said, wants), weigh_here(logits, prompt, said, wants)
    assert found == pytest.approx(expected, abs=3e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 50), st.floats(0.01, 0.9), st.floats(0.5, 2), st.floats(0.3, 2))
def test_the_fields_are_transformers_own(
    seed: int, top_k: int, min_p: float, repetition: float, temperature: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, generator=random) * 3
    prompt = torch.randint(0, 50, (10,), generator=random).tolist()
    wants = Sampling(max_tokens=1, temperature=temperature, top_k=top_k, min_p=min_p, repetition_penalty=repetition)
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(repetition),
            TemperatureLogitsWarper(temperature),
            MinPLogitsWarper(min_p),
            TopKLogitsWarper(top_k),
        ]
    )
    said = prompt[5:]
    expected = theirs(torch.tensor([prompt]), logits[None].clone())[0].softmax(-1)
    drawing = Sampler(wants, CPU, prompt[:5])
    for token in said:
        drawing.note(token)
    assert torch.allclose(drawing.weigh(logits), expected, atol=3e-6)


def test_equal_logits_at_the_border_of_top_k_stay_together() -> None:
    assert set(draws(sampler(top_k=2), torch.tensor([3.0, 1.0, 1.0, 0.0]), 300)) == {0, 1, 2}


def test_the_repetition_penalty_reads_the_prompt_and_counts_a_token_once() -> None:
    drawing = Sampler(Sampling(max_tokens=1, temperature=0, repetition_penalty=2.0), CPU, [0, 0])
    assert draws(drawing, torch.tensor([2.1, 1.0, -1.0]), 1) == [0]
    drawing.note(0)
    assert draws(drawing, torch.tensor([2.1, 1.0, -1.0]), 1) == [0]
    assert draws(drawing, torch.tensor([1.9, 1.0, -1.0]), 1) == [1]
    assert draws(Sampler(Sampling(1, temperature=0, repetition_penalty=2.0), CPU, [0]), -LOGITS, 1) == [3]


@pytest.mark.parametrize("penalty", [0.01, 100.0])
def test_the_strongest_penalties_stay_finite(penalty: float) -> None:
    wants = Sampling(max_tokens=1, temperature=2e-4, repetition_penalty=penalty, min_p=1.0, top_k=1, seed=1)
    found = Sampler(wants, CPU, [0, 3]).weigh(LOGITS * 50)
    assert found.isfinite().all()
    assert found.sum() == pytest.approx(1)


def test_nothing_ends_a_text_before_its_least_length() -> None:
    drawing = Sampler(Sampling(max_tokens=9, temperature=0, min_tokens=2, stop_tokens=(1,)), CPU, ends=[0])
    found = []
    for _ in range(3):
        found += draws(drawing, LOGITS, 1)
        drawing.note(found[-1])
    assert found == [2, 2, 0]
    only = torch.full((4,), -torch.inf).index_fill(0, torch.tensor([0]), 1.0)
    assert draws(Sampler(Sampling(max_tokens=9, min_tokens=2), CPU, ends=[0]), only, 5) == [0] * 5
