"""The sizes of states, against a real cache."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from tureen_serve.runtimes.on_transformers.workspace import count_state_bytes, count_workspace_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_states_are_those_of_the_cache(dtype: torch.dtype) -> None:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
    )
    cache = DynamicCache()
    LlamaForCausalLM(config).to(dtype)(input_ids=torch.ones(1, 5, dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert count_state_bytes(config, dtype) * 5 == held
    assert count_workspace_bytes(config, dtype, 5) > held
