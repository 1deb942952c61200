"""Attention in groups gives what transformers' own attention gives, whatever the heads, the mask and the window."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, MistralConfig

from tureen_core import grouped_attention
from tureen_core.grouped_attention import NAME, group_queries, grouped_queries

SIZES: dict[str, Any] = {
    **{"vocab_size": 50, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3},
    **{"num_attention_heads": 6, "head_dim": 8},
}
CONFIGS = {
    "grouped": LlamaConfig(**SIZES, num_key_value_heads=2),
    "one for all": LlamaConfig(**SIZES, num_key_value_heads=1),
    "one for each": LlamaConfig(**SIZES, num_key_value_heads=6),
    "window": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4),
}
IDS = torch.arange(3, 43).view(4, 10)


def make_model(name: str, attention: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name]), attn_implementation=attention).eval()


def read_step_by_step(model: Any, padding: int) -> torch.Tensor:
    """The logits ``[4, 5, V]`` of five tokens, each alone in its forward pass, after five together."""
    mask = torch.ones(4, 10, dtype=torch.long)
    mask[0, :padding] = 0  # the first row is padded on the left
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache, found = DynamicCache(config=model.config), []
    with torch.no_grad():
        for start, end in [(0, 5), *((at, at + 1) for at in range(5, 10))]:
            arguments = {"attention_mask": mask[:, :end], "position_ids": places[:, start:end]}
            out = model(input_ids=IDS[:, start:end], past_key_values=cache, use_cache=True, **arguments)
            found.append(out.logits[:, -1])
    return torch.stack(found[1:], 1)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_eager_attention(name: str, padding: int) -> None:
    wanted = read_step_by_step(make_model(name, "eager"), padding)
    found = read_step_by_step(make_model(name, NAME), padding)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_keys_of_one_token_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    def attend(query: torch.Tensor, key: torch.Tensor, *rest: Any, **arguments: Any) -> torch.Tensor:
        heads.append((query.shape[1:3], key.shape[1]))
        return torch.nn.functional.scaled_dot_product_attention(query, key, *rest, **arguments)

    monkeypatch.setattr(grouped_attention, "scaled_dot_product_attention", attend)
    read_step_by_step(make_model("grouped", NAME), 3)
    assert heads == [((2, 3), 2)] * 10  # of two layers, five tokens


def test_only_models_that_run_sdpa_are_changed() -> None:
    sdpa, eager = make_model("grouped", "sdpa"), make_model("grouped", "eager")
    with grouped_queries(sdpa), grouped_queries(eager):
        assert [each.config._attn_implementation for each in (sdpa, eager)] == [NAME, "eager"]
    assert sdpa.config._attn_implementation == "sdpa"
    assert (group_queries(sdpa), group_queries(eager)) == (True, False)
    assert (sdpa.config._attn_implementation, eager.config._attn_implementation) == (NAME, "eager")
