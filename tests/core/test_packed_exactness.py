"""Which architectures run packed, tried on tiny random ones: none that would change a number is let through."""

from typing import Any

import pytest
import torch
import transformers
from torch._dynamo.exc import BackendCompilerFailed
from transformers import AutoModel, LlamaConfig, LlamaModel

from tureen_core.base import locate_base
from tureen_core.packed.exactness import find_packing_obstacle, list_layers, make_sample, summarise_error

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
MARKS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GROUPED: dict[str, Any] = {**SIZE, "intermediate_size": 64, "num_key_value_heads": 2, **MARKS}


def build(kind: str, /, **changes: Any) -> Any:
    """A tiny model with weights large enough for attention to matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**changes, initializer_range=0.3)
    return getattr(transformers, f"{kind.removesuffix('Text')}{'Text' * kind.endswith('Text')}Model")(config).eval()


PACKED: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Mistral": {**GROUPED, "sliding_window": 6},
    "Gemma3Text": {**GROUPED, "head_dim": 8, "sliding_window": 6},
    "Mixtral": {**GROUPED, "num_local_experts": 2},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300, **MARKS},
    "Bert": {**SIZE, "intermediate_size": 64},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Gemma2": ({**GROUPED, "head_dim": 8}, "softcap"),
    "GptOss": ({**GROUPED, "head_dim": 8, "num_local_experts": 4}, "s_aux"),
    "ModernBert": ({**SIZE, **MARKS, "cls_token_id": 0, "sep_token_id": 1}, "a mask of its own"),
    "Roberta": ({**SIZE, "intermediate_size": 64}, "layer 0 gives other states"),
    "Mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300, **MARKS}, "linear_attention layers"),
    "Lfm2": ({**GROUPED, "layer_types": ["conv", "full_attention"]}, "conv layers"),
    "Bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300, **MARKS}, "knows no packed"),
}


@pytest.mark.parametrize("kind", PACKED)
def test_models_that_attend_through_the_interface_are_packed(kind: str) -> None:
    model = build(kind, **PACKED[kind])
    before = model.config._attn_implementation
    assert find_packing_obstacle(model) is None
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_packing_would_change_are_refused_with_the_reason(kind: str) -> None:
    sizes, reason = REFUSED[kind]
    model = build(kind, **sizes)
    before = model.config._attn_implementation
    assert reason in str(find_packing_obstacle(model))
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_the_longest_text_changes_are_refused(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
    assert find_packing_obstacle(build("Llama", **GROUPED, rope_parameters=rope)) is not None
    assert find_packing_obstacle(build("Llama", **GROUPED, rope_parameters={**rope, "rope_type": "default"})) is None


class Forgetful(LlamaModel):  # type: ignore[misc]
    """Numbers the tokens of a batch itself."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **rest: Any) -> Any:
        return super().forward(input_ids=input_ids, **rest)


class Mingling(LlamaModel):  # type: ignore[misc]
    """Adds to each token a little of the one before it, whosever that is."""

    def forward(self, input_ids: Any = None, **rest: Any) -> Any:
        states = self.embed_tokens(input_ids)
        states[:, 1:] += 0.1 * states[:, :-1]
        return super().forward(inputs_embeds=states, **rest)


class Deaf(LlamaModel):  # type: ignore[misc]
    """Keeps from its layers what it does not know."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **_: Any) -> Any:
        return super().forward(input_ids=input_ids, position_ids=position_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Forgetful, Mingling, Deaf])
def test_a_model_that_only_looks_packable_is_found_out(kind: type[LlamaModel], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED, initializer_range=0.15)
    assert find_packing_obstacle(LlamaModel(config).to(dtype)) is None
    assert find_packing_obstacle(kind(config).to(dtype)) is not None


def test_a_model_whose_layers_are_not_known_is_refused() -> None:
    class Bare(LlamaModel):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, **rest: Any) -> Any:
            self.layers = torch.nn.ModuleList()
            return super().forward(input_ids=input_ids, **rest)

    assert find_packing_obstacle(Bare(LlamaConfig(**GROUPED))) == "nothing tells in torch.float32 whether Bare can be"


def test_a_model_too_coarse_to_tell_is_refused() -> None:
    wild = LlamaModel(LlamaConfig(**GROUPED, initializer_range=1.0)).to(torch.bfloat16)
    assert find_packing_obstacle(wild) == "nothing tells in torch.bfloat16 whether LlamaModel can be"


def test_a_dead_accelerator_is_no_reason_to_pad() -> None:
    model = build("Llama", **GROUPED)

    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("illegal memory access", 700)

    model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(torch.AcceleratorError):
        find_packing_obstacle(model)


def test_the_sample_has_no_two_sizes_alike() -> None:
    """Else a compiler could take the number of tokens for the number of keys."""
    texts, packing = make_sample((), True)
    sizes = [len(packing.ids), len(packing.keys), len(packing.lengths) + 1, len(texts)]
    assert len(set(sizes)) == len(sizes)


def test_layers_are_those_that_repeat() -> None:
    assert len(list_layers(build("Llama", **GROUPED))) == 2


def test_the_gist_is_one_line_and_of_a_compiler_its_own() -> None:
    assert summarise_error(RuntimeError("out of luck\nand a long story")) == "out of luck"
    assert summarise_error(KeyError()) == "KeyError"
    assert summarise_error(BackendCompilerFailed(lambda: None, OSError("no compiler"), None)) == "no compiler"


@pytest.mark.real
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smollm2_is_packed_in_every_dtype(dtype: torch.dtype) -> None:
    """Its states in 16 bits are apart by more than themselves after thirty layers, whatever computes them."""
    assert find_packing_obstacle(AutoModel.from_pretrained(locate_base("smollm2-135m-instruct"), dtype=dtype)) is None
