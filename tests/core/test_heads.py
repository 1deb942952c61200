"""Pooling against loops that anyone can read, and a head that stays in float32."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tureen_core.heads import GatedHead, LinearHead, Pooling, find_readout_positions, pool_hidden_states

LENGTHS = [4, 1, 2, 6]
WIDTH, HIDDEN = 6, 5


def padded(lengths: list[int], side: str, width: int = WIDTH) -> Tensor:
    """An attention mask with ``lengths`` tokens in each row, padded on one side."""
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, width - length :] = 1 if side == "left" else 0
        if side == "right":
            mask[row, :length] = 1
    return mask


def naive(hidden: Tensor, mask: Tensor, pooling: Pooling, eos_appended: bool) -> Tensor:
    """The definition, a token at a time, in float64."""
    rows = []
    for states, present in zip(hidden.double(), mask, strict=True):
        tokens = [state for state, seen in zip(states, present, strict=True) if seen]
        if pooling == "mean":
            rows.append(sum(tokens[1:], tokens[0]) / len(tokens))
        elif pooling == "max":
            rows.append(torch.stack([max(column) for column in zip(*tokens, strict=True)]))
        elif pooling == "last" and eos_appended and len(tokens) > 1:
            rows.append(tokens[-2])
        else:
            rows.append(tokens[-1])
    return torch.stack(rows)


@pytest.mark.parametrize("eos_appended", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["last", "eos", "mean", "max"])
def test_pooling_is_the_loop_on_either_side(pooling: Pooling, side: str, eos_appended: bool) -> None:
    hidden = torch.randn(len(LENGTHS), WIDTH, HIDDEN, generator=torch.Generator().manual_seed(0))
    mask = padded(LENGTHS, side)
    expected = naive(hidden, mask, pooling, eos_appended)
    torch.testing.assert_close(
        pool_hidden_states(hidden, mask, pooling, eos_appended).double(), expected, rtol=1e-6, atol=1e-6
    )


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    spare=st.integers(0, 3),
    pooling=st.sampled_from(["last", "eos", "mean", "max"]),
    eos_appended=st.booleans(),
    seed=st.integers(0, 999),
)
def test_padding_and_company_change_nothing(
    lengths: list[int], spare: int, pooling: Pooling, eos_appended: bool, seed: int
) -> None:
    """A sequence has the same vector alone, padded left, padded right, and among longer ones."""
    rng = torch.Generator().manual_seed(seed)
    width = max(lengths) + spare
    texts = [torch.randn(length, HIDDEN, generator=rng) for length in lengths]
    alone = [pool_hidden_states(text[None], torch.ones(1, len(text)), pooling, eos_appended) for text in texts]
    for side in ("left", "right"):
        mask = padded(lengths, side, width)
        hidden = torch.full((len(lengths), width, HIDDEN), 1e9)
        hidden[mask.bool()] = torch.cat(texts)
        torch.testing.assert_close(
            pool_hidden_states(hidden, mask, pooling, eos_appended), torch.cat(alone), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("pooling", ["last", "eos", "mean", "max"])
def test_what_stands_on_padding_is_never_read(pooling: Pooling) -> None:
    """Attention over a fully masked row gives NaN in some kernels; it must not leak into the mean."""
    hidden = torch.ones(1, 4, HIDDEN)
    hidden[0, :2] = float("nan")
    assert pool_hidden_states(hidden, torch.tensor([[0, 0, 1, 1]]), pooling).tolist() == [[1.0] * HIDDEN]


def test_max_of_negative_activations_is_negative() -> None:
    """DSP multiplies by the mask before the maximum, so that a padding's zero wins; -inf does not."""
    hidden = torch.tensor([[[-3.0], [-1.0], [5.0]]])
    assert pool_hidden_states(hidden, torch.tensor([[1, 1, 0]]), "max").item() == -1.0


def test_positions_come_from_the_mask_and_not_from_a_pad_id() -> None:
    """A pad id inside the text (a pad that equals EOS) is a token like any other while the mask says so."""
    pad, ids = 2, torch.tensor([[7, 2, 8, 2, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert ids[0, 3].item() == pad
    assert find_readout_positions(mask, "eos").tolist() == [3]
    assert find_readout_positions(mask, "last", eos_appended=True).tolist() == [2]


def test_a_single_token_is_its_own_last() -> None:
    mask = padded([1, 1], "left")
    assert find_readout_positions(mask, "last", eos_appended=True).tolist() == [5, 5]
    assert find_readout_positions(padded([1], "right"), "last", eos_appended=True).tolist() == [0]


def test_without_an_appended_eos_last_is_the_last_token() -> None:
    mask = padded([3], "right")
    assert find_readout_positions(mask, "last", eos_appended=False).tolist() == [2]
    assert find_readout_positions(mask, "last", eos_appended=True).tolist() == [1]


@pytest.mark.parametrize("pooling", ["last", "eos", "mean", "max"])
def test_an_empty_sequence_has_no_reward(pooling: Pooling) -> None:
    mask = torch.tensor([[1, 1], [0, 0]])
    with pytest.raises(ValueError, match="sequence 1 has no tokens"):
        pool_hidden_states(torch.ones(2, 2, HIDDEN), mask, pooling)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_pooled_in_float32(dtype: torch.dtype) -> None:
    hidden = torch.randn(1, 999, HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype)
    pooled = pool_hidden_states(hidden, torch.ones(1, 999), "mean")
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[0].double(), hidden[0].double().mean(0), rtol=1e-5, atol=1e-6)


def test_a_mask_may_be_boolean_or_floating() -> None:
    hidden = torch.randn(2, 4, HIDDEN)
    mask = padded([2, 4], "left", 4)
    for other in (mask.bool(), mask.float(), mask.to(torch.int32)):
        assert torch.equal(pool_hidden_states(hidden, mask, "mean"), pool_hidden_states(hidden, other, "mean"))


@pytest.mark.parametrize("objectives", [1, 3])
def test_the_head_is_a_product_in_float32(objectives: int) -> None:
    head = LinearHead(HIDDEN, objectives)
    states = torch.randn(4, HIDDEN)
    expected = states.double() @ head.weight.detach().double().T
    assert head(states).shape == (4, objectives)
    torch.testing.assert_close(head(states).double(), expected, rtol=1e-5, atol=1e-6)
    assert head.bias is None
    assert set(head.state_dict()) == {"weight"}


def test_autocast_does_not_reach_the_head() -> None:
    head = LinearHead(64, 2)
    hidden, mask = torch.randn(3, 5, 64), torch.ones(3, 5)
    plain = head(pool_hidden_states(hidden, mask, "mean"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.Linear(64, 2)(hidden).dtype == torch.bfloat16
        under = head(pool_hidden_states(hidden, mask, "mean"))
    assert under.dtype == torch.float32
    assert torch.equal(under, plain)


def test_a_head_cast_with_its_model_still_answers_in_float32() -> None:
    head = LinearHead(HIDDEN).to(torch.bfloat16)
    states = torch.randn(2, HIDDEN, dtype=torch.bfloat16)
    assert head(states).dtype == torch.float32


def test_a_head_is_made_in_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert LinearHead(HIDDEN).weight.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_reach_the_head_and_the_states() -> None:
    head, hidden = LinearHead(HIDDEN), torch.randn(2, 3, HIDDEN, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    head(pool_hidden_states(hidden, mask, "eos")).sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    assert hidden.grad.abs().sum(-1).bool().tolist() == [[False, True, False], [False, False, True]]


# --------------------------------------------------------------------------- gates


def gated(rewards: int = 3, **sizes: float) -> GatedHead:
    torch.manual_seed(4)
    gate = GatedHead(HIDDEN, rewards, width=7, depth=2, temperature=2.5, scale=1.5, dropout=0.5)
    gate.transform[1] = torch.tensor([-0.25, 0.0, -0.95])
    return gate.eval()


def test_a_gate_is_armorms_formula_in_float64() -> None:
    """S = Σ_k g_k (R M)_k, written out; what is served is the same sum over the raw rewards, Σ_k R_k c_k."""
    gate = gated()
    rng = torch.Generator().manual_seed(5)
    prompts, rewards = torch.randn(4, HIDDEN, generator=rng), torch.randn(4, 3, generator=rng)
    state = prompts.double().numpy()
    tensors = {name: tensor.double().numpy() for name, tensor in gate.state_dict().items()}
    weights = [(tensors[f"layers.{layer}.weight"], tensors[f"layers.{layer}.bias"]) for layer in range(3)]
    for weight, bias in weights[:-1]:
        state = np.maximum(state @ weight.T + bias, 0)
    odds = np.exp((state @ weights[-1][0].T + weights[-1][1]) / 2.5)
    gates = 1.5 * odds / odds.sum(1, keepdims=True)
    transformed = rewards.double().numpy() @ gate.transform.double().numpy()
    with torch.no_grad():
        found = gate.score(rewards, gate.coefficients(prompts))
        assert gate(prompts).numpy() == pytest.approx(gates, abs=1e-6)
    assert found.numpy() == pytest.approx((gates * transformed).sum(1), abs=1e-6)


def test_a_gate_stays_in_float32_under_autocast_and_drops_nothing_when_read() -> None:
    gate, prompts = gated(), torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(6))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = gate.coefficients(prompts)
        assert found.dtype == torch.float32
    assert torch.equal(found, gate.coefficients(prompts))
    assert (gate.hidden, gate.rewards) == (HIDDEN, 3)


def test_only_the_layers_and_the_scale_of_a_gate_are_learnt() -> None:
    layers = {f"layers.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")}
    assert {name for name, _ in gated().named_parameters()} == {*layers, "scale"}
