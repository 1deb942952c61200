"""Attention over a packed row is each text's own, for every family that declares it; the others are refused."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    FalconH1Config,
    Gemma2Config,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PhiConfig,
    Qwen3Config,
)

from tureen_core.packed.attention import NAME, make_spans, packed_attention, run_packed
from tureen_core.packed.exactness import find_packing_obstacle
from tureen_core.packed.layout import PlainText, pack_texts

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
TEXTS = torch.tensor([[5, 6, 7, 8, 9, 3], [5, 6, 7, 4, 0, 0], [5, 6, 7, 4, 4, 0], [8, 8, 0, 0, 0, 0]])
PACKED = pack_texts(
    [PlainText(tuple(text[text != 0].tolist())) for text in TEXTS], dict.fromkeys((0, 1, 2), ((5, 6, 7), ()))
)


def plain(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "mistral, a long window": MistralConfig(**plain(sliding_window=64)),
    "mistral, a window shorter than texts and prompts": MistralConfig(**plain(sliding_window=2)),
    "gemma": GemmaConfig(**SMALL),
    "phi": PhiConfig(**plain(num_key_value_heads=4)),
    "gpt-neox": GPTNeoXConfig(**plain(num_attention_heads=4)),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "gemma2": (Gemma2Config(**plain(sliding_window=16)), "its attention asks for attn_logit_softcapping"),
    "an encoder": (
        BertConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4),
        "a token sees those after it",
    ),
    "mamba": (MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2), "it has linear_attention layers"),
    "falcon-h1": (FalconH1Config(**plain(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_state=8)), "it has hybrid layers"),
    "seen from both sides": (
        LlamaConfig(**plain(is_causal=False)),
        "a token depends on more than what attention shows it",
    ),
    "moving positions": (
        LlamaConfig(**plain(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})),
        "its positions depend on the longest text of a batch",
    ),
}


def build(config: Any, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    return AutoModel.from_config(config, attn_implementation=attention).float()


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_are_those_of_each_text_alone(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    assert find_packing_obstacle(model, longest=32) is None
    mask = (TEXTS != 0).long()
    with torch.no_grad():
        alone = [model(input_ids=text[None, :length])[0][0] for text, length in zip(TEXTS, mask.sum(1), strict=True)]
        model.set_attn_implementation(NAME)
        padded = model(input_ids=TEXTS, attention_mask=mask)[0]
        row = run_packed(model, PACKED)
    places, _ = PACKED.find_texts(range(len(TEXTS)))
    for number, expected in enumerate(alone):
        assert torch.allclose(padded[number, : len(expected)], expected, atol=1e-5)
        assert torch.allclose(row[places[number, : len(expected)]], expected, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_sees_otherwise_is_refused(name: str) -> None:
    config, reason = REFUSED[name]
    model = build(config, "eager" if name == "mamba" else "sdpa")
    assert reason in (find_packing_obstacle(model, longest=32) or "")


def test_a_window_that_attention_is_not_told_of_is_refused_where_texts_are_longer() -> None:
    model = build(MistralConfig(**plain(sliding_window=16)))
    model._supports_flash_attn = False
    reason = "its window of 16 tokens is shorter than a text of 32, and attention is not told of it"
    assert find_packing_obstacle(model, longest=32) == reason
    assert find_packing_obstacle(model, longest=16) is None


def test_what_a_model_asks_of_attention_besides_is_not_dropped() -> None:
    query = torch.zeros(1, 1, 6, 4)
    spans = make_spans(pack_texts([PlainText((5, 6, 7, 8, 9, 3))], {}), query.device)
    with pytest.raises(ValueError, match="Linear needs softcap, which packed attention lacks: run it padded"):
        packed_attention(torch.nn.Linear(1, 1), query, query, query, None, spans=spans, softcap=30.0)
