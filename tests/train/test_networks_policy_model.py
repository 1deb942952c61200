"""A policy is the library's causal model, but for the answers that it reads: all kinds of heads, in parts."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    WhisperConfig,
)

from tureen_train.config import Lora, Model, RecipeError
from tureen_train.networks import policy_model
from tureen_train.networks.answer_batch import AnswerBatch, Layout, lay_out_answers
from tureen_train.networks.packing import switch_to_packed
from tureen_train.networks.policy_model import load_policy_model, make_policy_class

WHOLE = Model(lora=None, precision="fp32")
TEXTS = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 11], [12, 13, 14, 15, 16]]
STARTS = [3, 3, 2]
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GATED: dict[str, Any] = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, tuple[Any, bool]] = {
    "plain head": (lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=16)), True),
    "scaled": (lambda: GraniteForCausalLM(GraniteConfig(**GATED, logits_scaling=4.0)), False),
    "multiplied": (lambda: CohereForCausalLM(CohereConfig(**GATED, logit_scale=0.25)), False),
    "capped": (lambda: Gemma2ForCausalLM(Gemma2Config(**GATED, final_logit_softcapping=2.0)), False),
}


def lay_out(layout: Layout) -> AnswerBatch:
    return lay_out_answers(TEXTS, STARTS, [0, 0, 1], pad=0, layout=layout)


def read_plainly(model: Any) -> torch.Tensor:
    """The answers' log-probabilities by the library, one text at a time."""
    found = []
    for text, start in zip(TEXTS, STARTS, strict=True):
        table = torch.log_softmax(model(input_ids=torch.tensor([text])).logits[0].double(), -1)
        found += [table[place - 1, text[place]] for place in range(start, len(text))]
    return torch.stack(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_model_does_after_its_head_counts(tmp_path: Path, name: str) -> None:
    make, plain = FAMILIES[name]
    torch.manual_seed(0)
    saved = make().eval()
    for weight in saved.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    saved.save_pretrained(tmp_path)
    model = load_policy_model(tmp_path, WHOLE).eval()
    assert model.plain_head == plain
    expected = read_plainly(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval())
    assert torch.allclose(model(answers=lay_out("off"))["logprobs"].double(), expected, atol=1e-5)
    if switch_to_packed(model, 64):
        for batch in (lay_out("texts"), lay_out("prompts")):
            assert torch.allclose(model(answers=batch)["logprobs"].double(), expected, atol=1e-5)


def test_a_head_that_only_its_numbers_betray_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_model, "AFTER_HEAD", ())
    GraniteForCausalLM(GraniteConfig(**GATED, logits_scaling=4.0)).save_pretrained(tmp_path)
    assert not load_policy_model(tmp_path, WHOLE).plain_head


@pytest.mark.parametrize("with_entropies", [False, True])
def test_parts_give_what_the_whole_gives(base: Path, monkeypatch: pytest.MonkeyPatch, with_entropies: bool) -> None:
    model = load_policy_model(base, WHOLE)

    def run() -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        model.zero_grad()
        output = model(answers=lay_out("off"), temperature=0.7, with_entropies=with_entropies)
        torch.stack([each.mean() for each in output.values()]).sum().backward()
        return output, [weight.grad for weight in model.parameters()]

    whole, gradients = run()
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    monkeypatch.setattr(policy_model, "LOGITS_AT_ONCE", 2 * model.config.vocab_size)
    parts, again = run()
    assert sizes[:4] == [2, 2, 2, 1]
    assert sorted(sizes[4:]) == [1, 2, 2, 2]  # the backward pass computes each part again
    assert set(whole) == ({"logprobs", "entropies"} if with_entropies else {"logprobs"})
    for name, values in whole.items():
        assert torch.allclose(parts[name], values, atol=1e-6)
    for found, expected in zip(again, gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_it_generates_and_is_saved_as_the_librarys_class(base: Path, tmp_path: Path) -> None:
    model = load_policy_model(base, WHOLE).eval()
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 6, 7]])
    asked: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **asked), plain.generate(ids, **asked))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("config", [T5Config(), WhisperConfig()], ids=lambda config: str(config.model_type))
def test_what_gives_no_single_logits_is_refused_by_name(config: Any) -> None:
    with pytest.raises(RecipeError, match=f"model.base: {config.model_type} cannot be trained as a policy"):
        make_policy_class(config)


@pytest.mark.parametrize(
    ("settings", "zero", "dtype"),
    [
        (WHOLE, 0, torch.float32),
        (Model(lora=None), 0, torch.float32),
        (Model(lora=None), 2, torch.bfloat16),
        (Model(lora=Lora()), 0, torch.bfloat16),
    ],
)
def test_the_dtype_of_the_weights(base: Path, settings: Model, zero: int, dtype: torch.dtype) -> None:
    assert load_policy_model(base, settings, zero).dtype == dtype


def test_tiny_bases_have_a_plain_head(tmp_path: Path) -> None:
    assert load_policy_model(tiny.base(tmp_path), WHOLE).plain_head
