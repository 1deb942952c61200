"""How much memory a batch takes beside the weights, from a model's configuration. Pure."""

from typing import Any

import torch

STATES = 6  # vectors of the hidden size that a layer holds at once: its input, the residual, norms, outputs
INNER = 3  # vectors of the inner size: gate, up, and their product


def count_state_bytes(config: Any, dtype: torch.dtype) -> int:
    """Count the bytes of one token's keys and values in all layers."""
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * dtype.itemsize)


def count_workspace_bytes(config: Any, dtype: torch.dtype, tokens: int) -> int:
    """Count the bytes that a batch of scores takes at most: one layer's states, and new prompts that are kept after.

    Args:
        tokens: of the batch.
    """
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    layer = (STATES * text.hidden_size + INNER * int(inner)) * dtype.itemsize
    return int(tokens * (layer + count_state_bytes(config, dtype)))
