"""Attention inside each segment of a packed batch, as an attention implementation of transformers.

On a GPU in 16 bits it is FlashAttention's kernel for unequal lengths. Elsewhere it is one call of
scaled_dot_product_attention for each segment. A segment with more keys than tokens continues a prompt: both kernels
align the causal mask to the bottom right, so its last token sees all its keys. A batch that is not packed goes to plain
scaled_dot_product_attention.
"""

from inspect import signature
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tureen_core.packed.layout import READ, PackedBatch, SegmentEnds, find_edges
from tureen_core.packed.segments import EVERYTHING, Segments

NAME = "tureen_packed"
REFUSED = ("position_bias", "s_aux", "softcap")  # arguments of some models that this attention does not support
# the kernel supports grouped heads in every version; since torch 2.12 the caller must ask for them
GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}


class PromptStates(Protocol):
    """Keys and values of earlier prompts, which are appended to those of the sequence."""

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the known prompts' keys and values to those of the next layer, ``[T, H_kv, D]`` each."""


class Spans(NamedTuple):
    """The layout of a packed batch for attention, on the model's device. It is made once for all layers.

    Attributes:
        keys: ``[K]`` places that each segment sees, segment after segment.
        queries_at: ``[S + 1]`` int32, where each segment begins among the tokens.
        keys_at: ``[S + 1]`` int32, where each segment begins among the keys.
        most_queries: the number of tokens of the longest segment.
        most_keys: the largest number of keys of a segment.
        segments: the same layout for kernels that run one segment at a time, with their masks.
    """

    keys: Tensor
    queries_at: Tensor
    keys_at: Tensor
    most_queries: int
    most_keys: int
    segments: Segments


def make_spans(batch: PackedBatch, device: torch.device) -> Spans:
    """Make the spans of a packed batch for a model on ``device``."""
    queries_at, keys_at = find_edges(batch.lengths).int(), find_edges(batch.reaches).int()
    return Spans(
        batch.keys.to(device),
        queries_at.to(device),
        keys_at.to(device),
        int(batch.lengths.max()),
        int(batch.reaches.max()),
        Segments(batch.keys, queries_at, keys_at),
    )


@torch.library.custom_op("tureen::attend", mutates_args=())
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    queries_at: Tensor,
    keys_at: Tensor,
    most_queries: int,
    most_keys: int,
    causal: bool,
    window: int,
    scale: float,
) -> Tensor:
    """Compute attention ``[T, H, D]`` of ``query`` ``[T, H, D]`` to ``key`` and ``value`` ``[T, H_kv, D]`` by segments.

    It is one operator to torch.compile, which therefore does not see the lengths and does not compile again for other
    lengths. It has no gradient.

    Args:
        window: how many keys back a token sees, itself included; :data:`EVERYTHING` for all.
    """
    segments = Segments(keys, queries_at, keys_at)
    spans = Spans(keys, queries_at, keys_at, most_queries, most_keys, segments)
    return _attend(query, key, value, spans, causal, window, scale).contiguous()


@attend.register_fake
def _(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1], value.shape[2])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    causal: bool,
    window: int,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _run_flash(query, key, value, spans, causal, window, scale)
    return spans.segments.attend(query, key, value, causal, window, scale, dropout)


def _run_flash(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, causal: bool, window: int, scale: float
) -> Tensor:
    if len(spans.keys) != len(query):
        key, value = key.index_select(0, spans.keys), value.index_select(0, spans.keys)
    reach = (window if window == EVERYTHING else window - 1, 0) if causal else (EVERYTHING, EVERYTHING)
    found = varlen_attn(query, key, value, *spans[1:5], scale=scale, window_size=reach, **GROUPED)
    assert isinstance(found, Tensor)
    return found


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    spans: Spans | None = None,
    prompt_states: PromptStates | None = None,
    ends: SegmentEnds | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """Compute attention ``[1, T, H, D]`` as transformers asks for it, from a query ``[1, H, T, D]``.

    ``key`` and ``value`` are ``[1, H_kv, T, D]``. ``spans`` is None if the batch is not packed.

    Raises:
        ValueError: the model passes an argument that packed attention does not support.
    """
    if spans is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **asked
        )
        return plain
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    unknown = [name for name in REFUSED if asked.get(name) is not None]
    if (attention_mask is not None and attention_mask.numel()) or (sliding_window and not causal):
        unknown.append("a mask of its own")
    if unknown:
        raise ValueError(f"{type(module).__name__} needs {unknown[0]}, which packed attention lacks: run it padded")
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    if prompt_states is not None:
        k, v = prompt_states.extend(k, v)
    scale = q.shape[2] ** -0.5 if scaling is None else scaling
    window = sliding_window or EVERYTHING
    if torch.compiler.is_compiling():
        return attend(q, k, v, *spans[:5], causal, window, scale).unsqueeze(0), None
    if ends is None or getattr(module, "layer_idx", None) != ends.layer:
        return _attend(q, k, v, spans, causal, window, scale, dropout).unsqueeze(0), None
    few = spans._replace(
        queries_at=ends.queries_at.to(q.device),
        most_queries=READ,
        segments=Segments(spans.keys, ends.queries_at, spans.keys_at),
    )
    out = q.new_zeros(len(q), q.shape[1], v.shape[2])
    out[ends.places] = _attend(q[ends.places], k, v, few, causal, window, scale)
    return out.unsqueeze(0), None


def run_packed(
    backbone: Any,
    batch: PackedBatch,
    prompt_states: PromptStates | None = None,
    ends: SegmentEnds | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Compute the hidden states ``[T, H]`` of a packed batch with a headless model whose attention is :data:`NAME`.

    Args:
        prompt_states: the keys and values of the batch's known prompts.
        ends: the tokens for which the last layer computes attention; None for all.
        device: the device to compute on; None for the device of the weights.

    Raises:
        RuntimeError: the model uses another attention implementation, which cannot run a packed batch.
    """
    device = device or backbone.device
    ids, positions = (each.unsqueeze(0).to(device) for each in (batch.ids, batch.positions))
    out = backbone(
        input_ids=ids,
        position_ids=positions,
        attention_mask=ids.new_ones(1, 1, 0, 0),  # passed on unchanged; another attention fails on this shape
        use_cache=False,
        spans=make_spans(batch, device),
        prompt_states=prompt_states,
        ends=ends,
    )
    states: Tensor = out[0][0]
    return states


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for batches that are not packed
