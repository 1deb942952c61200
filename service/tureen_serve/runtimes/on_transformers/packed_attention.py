"""Attention inside each segment of a packed sequence, as an attention implementation of transformers.

On a GPU it is FlashAttention's kernel for unequal lengths, elsewhere one call of scaled_dot_product_attention a
segment; everything but the kernel is the same. A segment with more keys than tokens continues a prompt: both kernels
align the causal mask to the bottom right, so its last token sees all its keys.
"""

from collections.abc import Iterator
from inspect import signature
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tureen_serve.runtimes.on_transformers.last_layer import READ, Ends
from tureen_serve.runtimes.on_transformers.packing import Packing, edges
from tureen_serve.runtimes.on_transformers.prompt_states import Recall

NAME = "tureen_packed"
REFUSED = ("position_bias", "s_aux", "softcap")  # what some models ask of attention besides a window
EVERYTHING = -1
# the kernel has always read grouped heads; from torch 2.12 on its caller must ask for them
GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}


class Spans(NamedTuple):
    """What attention knows of a packing: its keys ``[K]``, edges ``[S + 1]`` in int32, the longest segment's sizes."""

    keys: Tensor
    queries_at: Tensor
    keys_at: Tensor
    most_queries: int
    most_keys: int


def spans_of(packing: Packing, device: torch.device) -> Spans:
    """The spans of a packing on its device."""
    return Spans(
        packing.keys.to(device),
        edges(packing.lengths).int().to(device),
        edges(packing.reaches).int().to(device),
        int(packing.lengths.max()),
        int(packing.reaches.max()),
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
    """Attention ``[T, H, D]`` of ``query`` ``[T, H, D]`` to ``key`` and ``value`` ``[T, H_kv, D]``, segment by segment.

    One operator, so that torch.compile does not look at lengths and is never asked to compile anew for others.

    Args:
        window: how many keys back a token sees, itself included; :data:`EVERYTHING` for all.
    """
    if query.is_cuda:
        if len(keys) != len(query):
            key, value = key[keys], value[keys]
        reach = (window if window == EVERYTHING else window - 1, 0) if causal else (EVERYTHING, EVERYTHING)
        found = varlen_attn(
            query, key, value, queries_at, keys_at, most_queries, most_keys, scale=scale, window_size=reach, **GROUPED
        )
        assert isinstance(found, Tensor)
        return found.contiguous()
    return _one_by_one(query, key, value, keys, queries_at.tolist(), keys_at.tolist(), causal, window, scale)


@attend.register_fake
def _(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1], value.shape[2])


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    queries_at: list[int],
    keys_at: list[int],
    causal: bool,
    window: int,
    scale: float,
) -> Tensor:
    """A segment that is not a whole text sees the bottom right corner of one mask that is large enough for all."""
    sizes = [(end - start, stop - first) for (start, end), (first, stop) in _spans(queries_at, keys_at)]
    cut = [(queries, reach) for queries, reach in sizes if causal and (queries < reach or window != EVERYTHING)]
    most = max((queries for queries, _ in cut), default=0), max((reach for _, reach in cut), default=0)
    mask = _visible(*most, window, query.dtype)
    found = []
    for (start, end), (first, stop) in _spans(queries_at, keys_at):
        q, (k, v) = query[start:end], (_taken(each, keys[first:stop], end - start) for each in (key, value))
        corner = mask[most[0] - len(q) :, most[1] - len(k) :] if (len(q), len(k)) in cut else None
        q, k, v = (each.transpose(0, 1).unsqueeze(0) for each in (q, k, v))
        plain = causal and corner is None
        states = scaled_dot_product_attention(
            q, k, v, corner, is_causal=plain, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        found.append(states[0].transpose(0, 1))
    return torch.cat(found)


def _spans(queries_at: list[int], keys_at: list[int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    return zip(pairwise(queries_at), pairwise(keys_at), strict=True)


def _taken(states: Tensor, keys: Tensor, queries: int) -> Tensor:
    """A segment's keys or values; without a copy where it has no others than its own tokens'."""
    if len(keys) != queries or not queries:
        return states.index_select(0, keys)
    return states.narrow(0, int(keys[0]), queries)


def _visible(queries: int, keys: int, window: int, dtype: torch.dtype) -> Tensor:
    """``[Q, K]``, 0 where each of the last Q of K tokens looks, at itself and those before it, in a window the last of
    them, and −∞ elsewhere.
    """
    hidden = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
    if window != EVERYTHING:
        hidden |= torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - window)
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, float("-inf"))


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    spans: Spans,
    recall: Recall | None = None,
    ends: Ends | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: from ``[1, H, T, D]`` and twice ``[1, H_kv, T, D]`` to ``[1, T, H, D]``.

    Raises:
        ValueError: the model asks something of attention that this does not do.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    unknown = [name for name in REFUSED if asked.get(name) is not None]
    if attention_mask is not None or (sliding_window and not causal):
        unknown.append("a mask of its own")
    if unknown:
        raise ValueError(f"{type(module).__name__} needs {unknown[0]}")
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    if recall is not None:
        k, v = recall.extend(k, v)
    scale = q.shape[2] ** -0.5 if scaling is None else scaling
    window = sliding_window or EVERYTHING
    if ends is None or getattr(module, "layer_idx", None) != ends.layer:
        return attend(q, k, v, *spans, causal, window, scale).unsqueeze(0), None
    few = spans._replace(queries_at=ends.queries_at, most_queries=READ)
    out = q.new_zeros(len(q), q.shape[1], v.shape[2])
    out[ends.places] = attend(q[ends.places], k, v, *few, causal, window, scale)
    return out.unsqueeze(0), None


def forward(backbone: Any, packing: Packing, recall: Recall | None = None, ends: Ends | None = None) -> Tensor:
    """Hidden states ``[T, H]`` of a backbone whose attention is :data:`NAME`.

    Args:
        recall: the prompts that the packing knows.
        ends: the places that the last layer attends from; None for all.
    """
    device = backbone.device
    ids, positions = (each.unsqueeze(0).to(device) for each in (packing.ids, packing.positions))
    out = backbone(input_ids=ids, position_ids=positions, spans=spans_of(packing, device), recall=recall, ends=ends)
    states: Tensor = out.last_hidden_state[0]
    return states


AttentionInterface.register(NAME, packed_attention)
