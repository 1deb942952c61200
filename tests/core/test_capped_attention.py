"""A cap of attention's scores is kept, where transformers' sdpa leaves it out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)

from tureen_core.capped_attention import keep_attention_cap
from tureen_core.plain.linear_heads import load_float32
from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime

CAP = 1.5
SIZES: dict[str, Any] = {
    **{"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
}
IDS = torch.arange(3, 40).unsqueeze(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, attn_logit_softcapping=CAP)).save_pretrained(tmp_path)
    return tmp_path


def read(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).last_hidden_state
    return found


def test_a_model_with_a_cap_has_the_states_of_eager_attention(folder: Path) -> None:
    wanted = read(AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32))
    without = read(AutoModel.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32))
    assert float((without - wanted).abs().max()) > 0.1  # transformers leaves it out
    for model in (
        keep_attention_cap(AutoModel.from_pretrained(folder, dtype=torch.float32)),
        load_float32(AutoModel, folder),
        TransformersRuntime("float32", "cpu", BatchLimits())._load(AutoModel, folder),
    ):
        torch.testing.assert_close(read(model), wanted, atol=1e-5, rtol=0)


def test_other_models_stay_as_they_are() -> None:
    for config in (LlamaConfig(**SIZES), Gemma2Config(**SIZES, attn_logit_softcapping=None)):
        model = AutoModel.from_config(config, attn_implementation="sdpa")
        assert keep_attention_cap(model).config._attn_implementation == "sdpa"


def test_the_parts_of_a_model_are_looked_at_too() -> None:
    part = {**SIZES, "attn_logit_softcapping": CAP}
    config = T5GemmaConfig(encoder=part, decoder=part, vocab_size=50)
    model = T5GemmaForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    keep_attention_cap(model)
    assert {each._attn_implementation for each in (config, config.encoder, config.decoder)} == {"eager"}
