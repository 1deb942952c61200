"""Attention of one new token a row that copies no keys and values, as an attention implementation of transformers.

In a model with grouped heads, several query heads share a head of keys and values. With a mask, transformers' sdpa
repeats the keys and values for each query head, at each token of each layer. Here the queries that share a head are the
rows of one head, so nothing is repeated. On a CPU that is several times faster. All else goes to sdpa.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tureen_grouped"


def attend_in_groups(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Compute attention as transformers' sdpa does.

    Args:
        query: ``[B, H, T, D]``; with T = 1 on a CPU it is computed in groups.
        key: ``[B, H_kv, S, D]``; H is a multiple of H_kv.
        value: like ``key``.
        attention_mask: ``[B, 1, T, S]``, true or added, or None.

    Returns:
        ``[B, T, H, D]``, and no attention weights.
    """
    rows, heads, tokens, _ = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1  # by all heads
    biased = arguments.get("position_bias") is not None
    if tokens > 1 or heads == key.shape[1] or not shared or biased or query.device.type != "cpu":
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **arguments
        )
        return plain
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], -1)
    states = scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return states.reshape(rows, 1, heads, -1), None


def group_queries(model: Any) -> bool:
    """Let a model of transformers that runs sdpa run this attention. Returns whether it ran sdpa."""
    found: bool = model.config._attn_implementation == "sdpa"
    if found:
        model.set_attn_implementation(NAME)
    return found


@contextmanager
def grouped_queries(model: Any) -> Iterator[None]:
    """Let a model run this attention for a time, if it runs sdpa."""
    found = group_queries(model)
    try:
        yield
    finally:
        if found:
            model.set_attn_implementation("sdpa")


AttentionInterface.register(NAME, attend_in_groups)
AttentionMaskInterface.register(NAME, sdpa_mask)
