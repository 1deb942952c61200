"""Attention over a packed row, as an attention implementation of transformers; and which models it is exact for.

On a GPU in 16 bits it is FlashAttention's kernel for unequal lengths that PyTorch brings, elsewhere one call of
scaled_dot_product_attention a segment. A segment's queries see its stem and itself, causally, aligned to the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tureen_train.rewards.sharing import Packing

NAME = "tureen_shared"
LAYERS = {"full_attention", "sliding_attention"}
MOVING = {"dynamic", "longrope"}
REFUSED = ("position_bias", "s_aux", "softcap")  # what some models ask of attention besides a window
ASKING = ("attn_logit_softcapping",)
SINKING = {"gpt_oss"}
# from torch 2.12 on the caller must ask for grouped heads
GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}


def unpackable(model: Any, longest: int) -> str | None:
    """Why a causal language model cannot run packed as its texts run alone, or None.

    Args:
        longest: the most tokens that a text has: a window below it would be seen across a border.
    """
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - LAYERS
    if others:
        return f"it has {min(others)} layers"
    if model._is_stateful or not getattr(config, "is_causal", True):
        return "a token depends on more than what attention shows it"
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < longest:
        return f"its window of {window} tokens is shorter than a text of {longest}"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, Mapping)}
    if kinds & MOVING:
        return "its positions depend on the longest text of a batch"
    asked = next((name for name in ASKING if getattr(config, name, None) is not None), None)
    if asked or config.model_type in SINKING:
        return f"its attention asks for {asked or 'sinks'}"
    if config._attn_implementation == "eager":
        return "model.attention is eager"
    return None if model._supports_attention_backend else f"{type(model).__name__} hands nothing on to its attention"


@dataclass(frozen=True)
class Spans:
    """What attention knows of a packing.

    Attributes:
        lengths: tokens of each segment.
        stems: the segment of each one's prompt, or itself.
        keys: ``[K]`` places that each segment sees, segment after segment.
        queries_at: ``[S + 1]`` int32, where segments begin among the tokens.
        keys_at: ``[S + 1]`` int32, where they begin among the keys.
        reach: the most keys of any segment.
    """

    lengths: list[int]
    stems: list[int]
    keys: Tensor
    queries_at: Tensor
    keys_at: Tensor
    reach: int

    @cached_property
    def masks(self) -> list[Tensor | None]:
        """For each segment with a stem ``[L, P + L]``: a token sees its stem, and its segment up to itself."""
        found: list[Tensor | None] = []
        for number, (length, stem) in enumerate(zip(self.lengths, self.stems, strict=True)):
            before = self.lengths[stem]
            whole = torch.ones(length, before + length, dtype=torch.bool, device=self.keys.device)
            found.append(None if stem == number else whole.tril(before))
        return found


def spans_of(packing: Packing) -> Spans:
    """The spans of a packing, once for all layers."""
    lengths, stems, device = packing["lengths"].tolist(), packing["stems"].tolist(), packing["ids"].device
    own = torch.arange(sum(lengths)).split(lengths)
    seen = [own[n] if stem == n else torch.cat([own[stem], own[n]]) for n, stem in enumerate(stems)]
    reaches = [len(each) for each in seen]
    queries_at, keys_at = (pad(torch.tensor(each).cumsum(0), (1, 0)).int().to(device) for each in (lengths, reaches))
    return Spans(lengths, stems, torch.cat(seen).to(device), queries_at, keys_at, max(reaches))


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    spans: Spans | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **asked: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: from ``[1, H, T, D]`` and twice ``[1, H_kv, T, D]`` to ``[1, T, H, D]``.

    A batch that is not packed goes to plain scaled_dot_product_attention.

    Raises:
        ValueError: the model asks something of attention that this does not do.
    """
    if spans is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **asked
        )
        return plain
    unknown = [name for name in REFUSED if asked.get(name) is not None]
    if unknown:
        raise ValueError(f"{type(module).__name__} needs {unknown[0]}: set scale.packing to off")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _flash(query, key, value, spans, scaling), None
    return _one_by_one(query, key, value, spans, scaling, dropout), None


def _flash(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float | None) -> Tensor:
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    if len(spans.keys) != len(q):
        k, v = k.index_select(0, spans.keys), v.index_select(0, spans.keys)
    most = max(spans.lengths)
    found = varlen_attn(
        q, k, v, spans.queries_at, spans.keys_at, most, spans.reach, scale=scale, window_size=(-1, 0), **GROUPED
    )
    assert isinstance(found, Tensor)
    return found.unsqueeze(0)


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float | None, dropout: float) -> Tensor:
    queries, keys, values = (each.split(spans.lengths, 2) for each in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    found = []
    for number, (stem, mask) in enumerate(zip(spans.stems, spans.masks, strict=True)):
        k, v = keys[number], values[number]
        if mask is not None:
            k, v = torch.cat([keys[stem], k], 2), torch.cat([values[stem], v], 2)
        found.append(
            scaled_dot_product_attention(
                queries[number], k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
            )
        )
    return torch.cat(found, 2).transpose(1, 2)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for what is not packed
