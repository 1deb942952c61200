"""Attention segment by segment against one dense softmax that is told which token sees which."""

from typing import Any

import pytest
import torch
from core.packed_rows import Row, pack_rows
from serve.experts import texts
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from tureen_core.packed.attention import NAME, attend, make_spans, packed_attention, run_packed
from tureen_core.packed.layout import PackedBatch, find_edges, pack_texts
from tureen_core.packed.segments import EVERYTHING

KIND = (("kind", 1.0),)
CPU = torch.device("cpu")


def packing() -> PackedBatch:
    prompt, first, second, other, single = texts([7, 1, 5, 9, 1])
    rows = [Row(other, KIND), Row(prompt + first, KIND, 7), Row(prompt + second, KIND, 7), Row(single, KIND)]
    return pack_rows(rows)


def tensors(tokens: int, heads: int = 4, groups: int = 2, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(tokens, heads, width, generator=rng)
    key, value = (torch.randn(tokens, groups, width, generator=rng) for _ in range(2))
    return query, key, value


def visible(layout: PackedBatch, causal: bool, window: int) -> Tensor:
    """``[T, T]``, written down token by token from what a text is."""
    starts, ends = find_edges(layout.lengths).tolist(), find_edges(layout.reaches).tolist()
    found = torch.zeros(len(layout.ids), len(layout.ids), dtype=torch.bool)
    for segment in range(len(layout.lengths)):
        text = layout.keys[ends[segment] : ends[segment + 1]].tolist()
        for token in range(starts[segment], starts[segment + 1]):
            place = text.index(token)
            last = place + 1 if causal else len(text)
            first = 0 if window == EVERYTHING else max(0, place + 1 - window)
            found[token, text[first:last]] = True
    return found


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, float("-inf")).softmax(-1), value)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("causal", "window"), [(True, EVERYTHING), (True, 1), (True, 3), (True, 9), (False, EVERYTHING)]
)
def test_each_token_sees_its_text_up_to_itself(causal: bool, window: int, groups: int) -> None:
    layout = packing()
    qkv = tensors(len(layout.ids), groups=groups)
    found = attend(*qkv, *make_spans(layout, CPU)[:5], causal, window, 0.4)
    torch.testing.assert_close(found, dense(*qkv, visible(layout, causal, window), 0.4), atol=1e-6, rtol=0)


def test_nothing_shared_is_the_same_kernel_without_a_copy() -> None:
    layout = pack_texts([Row(each, KIND) for each in texts([4, 6])], {})
    qkv = tensors(10)
    found = attend(*qkv, *make_spans(layout, CPU)[:5], True, EVERYTHING, 0.4)
    torch.testing.assert_close(found, dense(*qkv, visible(layout, True, EVERYTHING), 0.4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("window", [EVERYTHING, 3])
def test_the_operator_is_what_torch_compile_is_told_it_is(window: int) -> None:
    layout = packing()
    torch.library.opcheck(attend, (*tensors(len(layout.ids)), *make_spans(layout, CPU)[:5], True, window, 0.4))


def test_a_value_may_be_narrower_than_its_key() -> None:
    layout = packing()
    query, key, value = tensors(len(layout.ids))
    mask = visible(layout, True, EVERYTHING)
    found = attend(query, key, value[..., :4].contiguous(), *make_spans(layout, CPU)[:5], True, EVERYTHING, 0.4)
    torch.testing.assert_close(found, dense(query, key, value, mask, 0.4)[..., :4], atol=1e-6, rtol=0)


class Attention(nn.Module):
    """What transformers hands over besides tensors."""

    is_causal = True


def call(mask: Tensor | None = None, **asked: Any) -> Tensor:
    layout = packing()
    query, key, value = (each.transpose(0, 1).unsqueeze(0) for each in tensors(len(layout.ids)))
    return packed_attention(Attention(), query, key, value, mask, make_spans(layout, CPU), **asked)[0]


@pytest.mark.parametrize("asked", ["softcap", "s_aux", "position_bias"])
def test_what_it_cannot_do_is_refused_by_name(asked: str) -> None:
    with pytest.raises(ValueError, match=f"Attention needs {asked}"):
        call(**{asked: torch.ones(1)})
    assert torch.equal(call(**{asked: None}), call())


def test_a_mask_is_refused_since_the_spans_say_it_all() -> None:
    with pytest.raises(ValueError, match="a mask of its own"):
        call(torch.ones(1, 1, 23, 23))


def test_a_window_to_both_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of its own"):
        call(sliding_window=3, is_causal=False)


def test_the_default_scale_is_that_of_the_head() -> None:
    assert torch.equal(call(), call(scaling=8**-0.5))
    assert not torch.equal(call(), call(scaling=0.1))


def test_a_llama_in_one_sequence_is_a_llama_text_by_text() -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaModel(LlamaConfig(vocab_size=300, num_key_value_heads=2, initializer_range=0.3, **size)).eval()
    layout = packing()
    with torch.inference_mode():
        index, mask = layout.find_texts(range(4))
        alone = [
            model(input_ids=layout.ids[row[present]].unsqueeze(0)).last_hidden_state[0]
            for row, present in zip(index, mask.bool(), strict=True)
        ]
        model.set_attn_implementation(NAME)
        found = run_packed(model, layout)
    torch.testing.assert_close(found[index[mask.bool()]], torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("causal", "window"), [(True, EVERYTHING), (True, 3), (False, EVERYTHING)])
def test_the_gpu_kernel_sees_what_the_cpu_sees(causal: bool, window: int) -> None:
    layout, device = packing(), torch.device("cuda")
    qkv = [each.to(device, torch.bfloat16) for each in tensors(len(layout.ids), width=64)]
    found = attend(*qkv, *make_spans(layout, device)[:5], causal, window, 0.125).float().cpu()
    query, key, value = (each.float().cpu() for each in qkv)
    expected = dense(query, key, value, visible(layout, causal, window), 0.125)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
