"""The gate against explicitly merged models: every row of a mixed batch is its own soup."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serve.experts import causal, logprobs, merged, stack, texts
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.soup import Semantics, Stack, StackedPair, apply_gate, concatenate_adapters
from tureen_serve.runtimes.on_transformers.padding import compute_positions, pad_sequences
from tureen_serve.runtimes.on_transformers.rank_gate import GatedLinear, Mixture, RankGate, attach_adapters

SEMANTICS: list[Semantics] = ["delta", "factor"]
SOUPS: list[Mixture] = [
    ((("academy", 1.0),), "delta"),
    ((("academy", 0.6), ("poetry", 0.4)), "delta"),
    ((), "delta"),
    ((("academy", 0.0), ("business", 1.0)), "delta"),
    ((("academy", 1.5), ("business", -0.5)), "delta"),
    ((("academy", 0.5), ("business", 0.3), ("poetry", 0.2)), "factor"),
    ((("business", -0.7),), "factor"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("gate") / "base")


@torch.inference_mode()
def gated_logprobs(model: Any, gate: RankGate, rows: list[Mixture], ids: list[tuple[int, ...]]) -> list[Tensor]:
    """Each row's log-probabilities in one left-padded batch."""
    tokens, mask = pad_sequences(ids, "left", torch.device("cpu"))
    gate.set_rows(rows)
    found = model(input_ids=tokens, attention_mask=mask, position_ids=compute_positions(mask)).logits.log_softmax(-1)
    return [row[-len(text) :] for row, text in zip(found, ids, strict=True)]


def test_each_row_of_a_mixed_batch_is_its_merged_model(base: Path) -> None:
    model = causal(base)
    gate = attach_adapters(model, stack())
    ids = texts([9, 14, 5, 11, 9, 3, 12])
    for found, text, (weights, semantics) in zip(gated_logprobs(model, gate, SOUPS, ids), ids, SOUPS, strict=True):
        expected = logprobs(merged(base, dict(weights), semantics), text)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_soups_differ_by_more_than_the_tolerance(base: Path) -> None:
    (text,) = texts([9])
    bare = logprobs(causal(base), text)
    for weights, semantics in SOUPS:
        distance = (logprobs(merged(base, dict(weights), semantics), text) - bare).abs().max()
        assert (distance > 1e-2) == any(weight for _, weight in weights)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_a_gate_weighs_all_tokens_again_after_a_layer_failed(semantics: Semantics) -> None:
    """An out-of-memory error between must not leave the gate weighing fewer tokens than the next layer has."""
    gate = RankGate(stack(), torch.float32, torch.device("cpu"))
    rows: list[Mixture] = [((("academy", 1.0),), semantics), ((("academy", 0.6), ("poetry", 0.4)), semantics)]
    gate.set_rows(rows, torch.tensor([2, 3]))
    ranks = next(iter(stack().modules.values())).ranks
    h = torch.randn(1, 5, sum(ranks))
    before = gate.mix(h, ranks)
    with pytest.raises(RuntimeError, match="out of memory"), gate.select_tokens(torch.tensor([4])):
        raise RuntimeError("out of memory")
    assert torch.equal(gate.mix(h, ranks), before)


def test_a_closed_gate_is_the_bare_base_to_the_bit(base: Path) -> None:
    (text,) = texts([20])
    model = causal(base)
    bare = logprobs(model, text)
    gate = attach_adapters(model, stack())
    gate.set_rows([((), "delta")])
    assert gate.is_closed
    assert torch.equal(logprobs(model, text), bare)


def test_experts_of_unequal_ranks_and_modules_share_a_gate(base: Path) -> None:
    wide = tiny.adapter("wide", 7, rank=6, scale=0.5)
    narrow = Adapter("narrow", dict(list(tiny.adapter("narrow", 8, rank=2).modules.items())[:3]))
    experts = concatenate_adapters([wide, narrow])
    rows: list[Mixture] = [((("wide", 0.3), ("narrow", 0.7)), "delta"), ((("narrow", 1.0),), "delta")]
    model = causal(base)
    gate = attach_adapters(model, experts)
    ids = texts([8, 8])
    for found, text, (weights, _) in zip(gated_logprobs(model, gate, rows, ids), ids, rows, strict=True):
        expected = logprobs(merged(base, dict(weights), of=experts), text)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_factor_rows_of_unequal_experts_are_refused_and_the_gate_stays(base: Path) -> None:
    experts = concatenate_adapters([tiny.adapter("a", 1, rank=2), tiny.adapter("b", 2, rank=4)])
    gate = attach_adapters(causal(base), experts)
    gate.set_rows([((("a", 1.0),), "delta")])
    with pytest.raises(SoupError, match="equal ranks"):
        gate.set_rows([((("a", 1.0),), "factor")])
    assert not gate.is_closed


def test_an_unknown_expert_is_refused(base: Path) -> None:
    gate = attach_adapters(causal(base), stack())
    with pytest.raises(SoupError, match="'humor'"):
        gate.set_rows([((("humor", 1.0),), "delta")])


def test_a_headless_backbone_drops_the_prefix(base: Path) -> None:
    (text,) = texts([10])
    model, whole = causal(base).model, merged(base, {"academy": 1.0})
    gate = attach_adapters(model, stack())
    gate.set_rows([((("academy", 1.0),), "delta")])
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([text])).last_hidden_state
        expected = whole.model(input_ids=torch.tensor([text])).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_bfloat16_keeps_the_factors_apart(base: Path) -> None:
    """A delta too small for a bfloat16 merge still works beside the weight."""
    linear = nn.Linear(16, 8, bias=False).to(torch.bfloat16)
    a, b = torch.randn(2, 16), torch.randn(8, 2) * 1e-4
    stacked = StackedPair(a, b, (2,), (1.0,))
    gate = RankGate(Stack(("tiny",), {"linear": stacked}), torch.bfloat16, torch.device("cpu"))
    gated = GatedLinear(linear, stacked, gate, torch.bfloat16)
    gate.set_rows([((("tiny", 1.0),), "delta")])
    x = torch.zeros(1, 1, 16, dtype=torch.bfloat16)
    x[..., 0] = 1
    assert gated(x).dtype == torch.bfloat16
    linear.weight.data.zero_()
    torch.testing.assert_close(gated(x).float()[0, 0], b @ a[:, 0], rtol=0.05, atol=1e-6)


def test_a_stack_of_another_architecture_is_refused_by_name(base: Path) -> None:
    strange = Adapter("x", {"model.layers.9.self_attn.q_proj": LoraPair(torch.ones(1, 32), torch.ones(32, 1), 1.0)})
    with pytest.raises(SoupError, match=r"model\.layers\.9\.self_attn\.q_proj.*LlamaForCausalLM"):
        attach_adapters(causal(base), concatenate_adapters([strange]))


def test_a_stack_of_another_width_is_refused(base: Path) -> None:
    with pytest.raises(SoupError, match="from 64 to 32 and the adapters expect 96 to 48"):
        attach_adapters(causal(base), concatenate_adapters([tiny.adapter("x", 1, hidden=48)]))


def test_modules_that_are_no_linear_are_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16))
    pair = LoraPair(torch.ones(1, 8), torch.ones(24, 1), 1.0)
    with pytest.raises(SoupError, match="Conv1D"):
        attach_adapters(model, concatenate_adapters([Adapter("x", {"transformer.h.0.attn.c_attn": pair})]))


def test_an_encoder_backbone_is_gated_too() -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=40, initializer_range=0.5, **size), add_pooling_layer=False).eval()
    pair = LoraPair(torch.randn(2, 8), torch.randn(8, 2), 1.0)
    path = "bert.encoder.layer.0.attention.self.query"
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    with torch.inference_mode():
        bare = model(input_ids=ids).last_hidden_state
        gate = attach_adapters(model, concatenate_adapters([Adapter("x", {path: pair})]))
        gate.set_rows([((("x", 1.0),), "delta"), ((), "delta")])
        found = model(input_ids=ids).last_hidden_state
    assert not torch.allclose(found[0], bare[0], atol=1e-3)
    torch.testing.assert_close(found[1], bare[1], atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mixed_rows_equal_the_algebra_row_by_row(data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 4))
    rank = data.draw(st.integers(1, 3))
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    names = [f"e{index}" for index in range(experts)]
    pairs = [Adapter(name, {"linear": LoraPair(torch.ones(rank, 4), torch.ones(4, rank), 1.0)}) for name in names]
    gate = RankGate(concatenate_adapters(pairs), torch.float32, torch.device("cpu"))
    weight = st.floats(-2, 2, width=32)
    rows: list[Mixture] = [
        (tuple((name, data.draw(weight)) for name in names), data.draw(st.sampled_from(["delta", "factor"])))
        for _ in range(batch)
    ]
    ranks = (rank,) * experts
    h = torch.randn(batch, length, rank * experts, generator=torch.Generator().manual_seed(0))
    gate.set_rows(rows)
    found = gate.mix(h, ranks)
    for index, (weights, semantics) in enumerate(rows):
        row = torch.tensor([value for _, value in weights])
        torch.testing.assert_close(found[index], apply_gate(h[index], row, ranks, semantics), atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_end_to_end_are_weighed_as_rows_apart(data: st.DataObject) -> None:
    gate = RankGate(stack(), torch.float32, torch.device("cpu"))
    weight = st.floats(-2, 2, width=32)
    rows: list[Mixture] = [
        ((("academy", data.draw(weight)), ("poetry", data.draw(weight))), data.draw(st.sampled_from(SEMANTICS)))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    ranks = (4, 4, 4)
    h = torch.randn(1, sum(lengths), 12, generator=torch.Generator().manual_seed(0))
    gate.set_rows(rows, torch.tensor(lengths))
    found = gate.mix(h, ranks)
    apart = []
    for row, part in zip(rows, h.split(lengths, dim=1), strict=True):
        gate.set_rows([row])
        apart.append(gate.mix(part, ranks))
    torch.testing.assert_close(found, torch.cat(apart, dim=1), atol=1e-6, rtol=1e-6)
