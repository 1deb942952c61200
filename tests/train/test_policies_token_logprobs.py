"""Log-probabilities of answers' tokens: those of the library in float64, with their gradients, padded and packed."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import get_peft_model
from train.tiny_runs import LORA
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Lora, Model
from tureen_train.networks.packing import switch_to_packed
from tureen_train.networks.policy_model import load_policy_model
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.encoding import EncodedAnswer, encode_answer
from tureen_train.policies.token_logprobs import TokenLogprobs, collate_answers, compute_token_logprobs

SAID = {"why do leaves fall?": ("the lazy dog", "they fall in autumn, you fox", "no"), "fox?": ("yes", "quick brown")}
GROUPS = [0, 0, 0, 1, 1]
LAYOUTS: list[Any] = ["off", "texts", "prompts"]


@pytest.fixture(scope="module")
def answers(base: Path) -> list[EncodedAnswer]:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))
    return [
        encode_answer(renderer, [{"role": "user", "content": asked}], [{"role": "assistant", "content": each}], {})
        for asked, said in SAID.items()
        for each in said
    ]


def load(base: Path, lora: bool) -> Any:
    settings = Model(lora=Lora(**LORA) if lora else None, precision="fp32")
    model = load_policy_model(base, settings)
    if settings.lora is not None:
        torch.manual_seed(3)
        model = get_peft_model(model, make_lora_config(settings.lora, model, task="CAUSAL_LM"))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    assert switch_to_packed(model, 256)
    return model.train()


def read_in_float64(model: Any, answer: EncodedAnswer, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of one answer's tokens, from all logits of its text alone."""
    logits = model(input_ids=torch.tensor([answer.ids])).logits[0] / temperature
    table = torch.log_softmax(logits[answer.start - 1 : -1], -1)
    chosen = table[range(len(answer.answer)), list(answer.answer)]
    return chosen, torch.distributions.Categorical(logits=table).entropy()


def test_values_and_masks_are_those_of_the_library_in_float64(base: Path, answers: list[EncodedAnswer]) -> None:
    oracle = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    model = load(base, lora=False)
    for layout in LAYOUTS:
        found = compute_token_logprobs(model, collate_answers(answers, GROUPS, 0, layout), 0.7, with_entropies=True)
        assert found.entropies is not None
        assert found.logprobs.shape == found.mask.shape == found.entropies.shape
        for row, answer in enumerate(answers):
            expected, entropies = read_in_float64(oracle, answer, 0.7)
            length = len(answer.answer)
            assert found.mask[row].tolist() == [place < length for place in range(found.mask.shape[1])]
            assert torch.allclose(found.logprobs[row, :length].double(), expected, atol=1e-5)
            assert torch.allclose(found.entropies[row, :length].double(), entropies, atol=1e-5)
            assert not found.logprobs[row, length:].any()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_the_library_in_float64(
    base: Path, answers: list[EncodedAnswer], lora: bool, layout: Any
) -> None:
    weights = torch.linspace(-1, 1, sum(len(each.answer) for each in answers))
    oracle, model = load(base, lora).double(), load(base, lora)
    values = [read_in_float64(oracle, answer, 1.0)[0] for answer in answers]
    (torch.cat(values) * weights).mean().backward()
    found = compute_token_logprobs(model, collate_answers(answers, GROUPS, 0, layout))
    assert found.entropies is None
    (found.logprobs[found.mask] * weights).mean().backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    for name, weight in oracle.named_parameters():
        if weight.requires_grad:
            assert weight.grad.abs().max() > 0, name
            assert torch.allclose(trained[name].double(), weight.grad, atol=1e-5), name


def test_shared_prompts_are_computed_once(base: Path, answers: list[EncodedAnswer]) -> None:
    model = load(base, lora=True)
    seen: list[int] = []
    heads: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].numel()))
    model.get_output_embeddings().register_forward_hook(lambda _, given, __: heads.append(len(given[0])))
    for layout in LAYOUTS:
        compute_token_logprobs(model, collate_answers(answers, GROUPS, 0, layout))
    padded, texts, prompts = seen
    assert padded == len(answers) * max(len(each.ids) for each in answers)
    assert texts == sum(len(each.ids) for each in answers)
    assert texts - prompts >= 2 * answers[0].start + answers[3].start
    assert heads == 3 * [sum(len(each.answer) for each in answers)]


def test_answers_without_tokens_have_no_log_probability_but_a_graph(base: Path) -> None:
    """A rank whose micro-batch holds none must still take part in the backward pass."""
    model = load(base, lora=False)
    found: TokenLogprobs = compute_token_logprobs(model, collate_answers([EncodedAnswer((4, 5), 2)], [0], 0, "texts"))
    assert found.logprobs.shape == (1, 0)
    found.logprobs.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
