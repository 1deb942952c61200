"""Answers of the sampler against plain ``generate`` of each prompt alone, and log-probabilities against float64."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from tureen_core.adapter_files import write_adapter
from tureen_core.base import load_tokenizer
from tureen_core.reading import Reading
from tureen_core.soup import concatenate_adapters, merge_adapter
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, Sampling
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.sampler import ProcessSampler, plan_batches

QUESTIONS = ("why?", "why do leaves fall in autumn?", "a", "the quick brown fox jumps over the lazy dog, " * 2)


def prompts(*questions: str) -> list[Prompt]:
    return [Prompt(f"file:{at}", ({"role": "user", "content": each},)) for at, each in enumerate(questions, 1)]


def write(sampler: ProcessSampler, asked: Sequence[Prompt], seed: int = 0, **changes: Any) -> list[list[Sample]]:
    return sampler.sample(asked, Sampling(**{"count": 3, "max_tokens": 12, **changes}), seed, ignore_progress)


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), Reading())


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """A policy in training: a LoRA with dropout that changes the base."""
    plain = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj", "down_proj"])
    torch.manual_seed(3)
    adapted = get_peft_model(plain, config)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    return adapted.train()


def generate_alone(model: Any, renderer: Renderer, prompt: Prompt, ends: list[int], count: int) -> list[int]:
    """The likeliest answer by ``generate``, one prompt without padding."""
    ids = torch.tensor([encode_prompt(renderer, prompt.messages, {})])
    rows = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=ends,
        pad_token_id=renderer.tokenizer.pad_token_id,
    )
    answer: list[int] = rows[0, ids.shape[1] :].tolist()
    return answer


def read_logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """The answer's log-probabilities by one pass in float64, without cache and padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs: torch.Tensor = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
    return logprobs


def check_against_generate(model: Any, renderer: Renderer) -> None:
    sampler = ProcessSampler(model, renderer)
    asked = prompts(*QUESTIONS)
    found = write(sampler, asked, count=1, temperature=0, batch=3)
    model.eval()
    assert [list(each[0].ids) for each in found] == [
        generate_alone(model, renderer, prompt, sampler.ends, 12) for prompt in asked
    ]


def test_the_likeliest_answers_are_those_of_each_prompt_alone(model: Any, renderer: Renderer) -> None:
    check_against_generate(model, renderer)


def test_without_the_adapter_the_answers_are_the_bases(base: Path, model: Any, renderer: Renderer) -> None:
    plain = ProcessSampler(AutoModelForCausalLM.from_pretrained(base), renderer)
    with model.disable_adapter():
        assert write(ProcessSampler(model, renderer), prompts(*QUESTIONS)) == write(plain, prompts(*QUESTIONS))
    assert write(ProcessSampler(model, renderer), prompts(*QUESTIONS)) != write(plain, prompts(*QUESTIONS))


def test_answers_of_a_soup_are_those_of_its_merged_weights(base: Path, renderer: Renderer, tmp_path: Path) -> None:
    stack = concatenate_adapters([tiny.adapter("a", 1), tiny.adapter("b", 2)])
    write_adapter(merge_adapter(stack, {"a": 0.7, "b": 0.3}, "soup"), tmp_path, "tiny", dtype=torch.float32)
    soup = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    check_against_generate(soup, renderer)


@pytest.mark.parametrize("kind", ["learned positions", "sliding window"])
def test_other_families_of_models_answer_as_alone(kind: str, renderer: Renderer) -> None:
    size = len(renderer.tokenizer)
    torch.manual_seed(5)
    if kind == "learned positions":
        other: Any = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3))
    else:
        config = MistralConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, sliding_window=16, initializer_range=0.3,
        )  # fmt: skip
        other = MistralForCausalLM(config)
    check_against_generate(other, renderer)


def test_log_probabilities_are_the_models_own(model: Any, renderer: Renderer) -> None:
    asked = prompts(*QUESTIONS)
    found = write(ProcessSampler(model, renderer), asked, temperature=0.7, top_k=20, min_tokens=3, batch=5)
    exact = model.eval().double()
    try:
        for prompt, samples in zip(asked, found, strict=True):
            for sample in samples:
                wanted = read_logprobs(exact, encode_prompt(renderer, prompt.messages, {}), sample.ids)
                given = torch.tensor(sample.logprobs, dtype=torch.float64)
                torch.testing.assert_close(given, wanted, rtol=0, atol=1e-4)
    finally:
        model.float()


def test_an_answer_does_not_depend_on_its_batch(model: Any, renderer: Renderer) -> None:
    sampler, asked = ProcessSampler(model, renderer), prompts(*QUESTIONS)
    found = write(sampler, asked)
    texts = [[(sample.number, sample.ids) for sample in each] for each in found]
    for batch in (1, 2, 5, 64):
        again = write(sampler, asked[::-1], batch=batch)[::-1]
        assert [[(sample.number, sample.ids) for sample in each] for each in again] == texts
    assert [(each.number, each.ids) for each in write(sampler, asked[1:2], count=1)[0]] == texts[1][:1]


def test_another_seed_or_number_gives_another_answer(model: Any, renderer: Renderer) -> None:
    sampler, asked = ProcessSampler(model, renderer), prompts(*QUESTIONS)
    first, second = write(sampler, asked, seed=0), write(sampler, asked, seed=1)
    pairs = zip(first, second, strict=True)
    assert all(one.ids != other.ids for each in pairs for one, other in zip(*each, strict=True))
    assert all(len({sample.ids for sample in each}) == 3 for each in first)


def test_a_policy_in_training_keeps_its_modes_and_random_state(model: Any, renderer: Renderer) -> None:
    model.train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.Embedding))
    frozen.eval()
    before, state = {id(each): each.training for each in model.modules()}, torch.get_rng_state()
    dropped = write(ProcessSampler(model, renderer), prompts(*QUESTIONS))
    assert {id(each): each.training for each in model.modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    assert write(ProcessSampler(model, renderer), prompts(*QUESTIONS)) == dropped
    assert all(value.grad is None for value in model.parameters())


def test_the_models_own_settings_of_generation_change_nothing(base: Path, renderer: Renderer) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base)
    wanted = write(ProcessSampler(plain, renderer), prompts(*QUESTIONS))
    own = plain.generation_config
    own.repetition_penalty, own.temperature, own.top_k, own.do_sample, own.min_new_tokens = 5.0, 0.1, 3, True, 9
    assert write(ProcessSampler(plain, renderer), prompts(*QUESTIONS)) == wanted
    assert plain.generation_config is own


def test_answers_end_with_the_end_token_or_say_that_they_do_not(model: Any, renderer: Renderer) -> None:
    sampler = ProcessSampler(model, renderer)
    found = [each for samples in write(sampler, prompts(*QUESTIONS), count=40, max_tokens=30) for each in samples]
    ended = [each for each in found if each.finished]
    assert 0 < len(ended) < len(found)
    for sample in found:
        inside = sample.ids[:-1] if sample.finished else sample.ids
        assert (sample.ids[-1] in sampler.ends) == sample.finished
        assert not set(inside) & set(sampler.ends)
        assert sample.text == renderer.tokenizer.decode(inside, skip_special_tokens=True)
        assert len(sample.logprobs) == len(sample.ids)
        assert sample.finished or len(sample.ids) == 30


def test_an_answer_that_ends_at_once_is_kept_and_is_empty(base: Path, renderer: Renderer) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base)
    head = torch.nn.Linear(32, plain.config.vocab_size)
    head.weight.data.zero_()
    head.bias.data.zero_()
    head.bias.data[renderer.tokenizer.eos_token_id] = 50.0
    plain.lm_head = head
    sampler = ProcessSampler(plain, renderer)
    for sample in write(sampler, prompts("why?"))[0]:
        assert (sample.text, sample.ids, sample.finished, sample.empty) == (
            "", (renderer.tokenizer.eos_token_id,), True, True,
        )  # fmt: skip
    for sample in write(sampler, prompts("why?"), min_tokens=4)[0]:
        assert len(sample.ids) == 4
        assert not sample.empty


def test_the_templates_end_mark_ends_an_answer_where_the_tokenizers_eos_is_another(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    mark = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.eos_token, tokenizer.pad_token = "<|endoftext|>", "<|im_start|>"
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.generation_config.eos_token_id = None
    sampler = ProcessSampler(plain, Renderer(tokenizer, Reading()))
    assert sampler.ends == sorted([mark, tokenizer.convert_tokens_to_ids("<|endoftext|>")])


def test_prompts_of_one_token_are_answered_as_alone(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    bare = Renderer(tokenizer, Reading(bos="none"))
    plain = AutoModelForCausalLM.from_pretrained(base)
    asked = prompts("a", "b", "why do leaves fall?")
    assert [len(encode_prompt(bare, each.messages, {})) for each in asked][:2] == [1, 1]
    sampler = ProcessSampler(plain, bare)
    together = write(sampler, asked)
    assert [each.ids for each in together[0]] == [each.ids for each in write(sampler, asked[:1])[0]]
    assert [each.ids for each in together[2]] == [each.ids for each in write(sampler, asked[2:])[0]]


def test_a_prompt_that_does_not_fit_the_context_is_an_error(base: Path, renderer: Renderer) -> None:
    sampler = ProcessSampler(AutoModelForCausalLM.from_pretrained(base), renderer)
    with pytest.raises(RecipeError, match="max_tokens: a prompt of .* context of 512"):
        write(sampler, prompts("a" * 600))


def test_progress_counts_the_answers(base: Path, renderer: Renderer) -> None:
    told: list[int] = []
    sampler = ProcessSampler(AutoModelForCausalLM.from_pretrained(base), renderer)
    sampler.sample(prompts(*QUESTIONS), Sampling(count=3, max_tokens=2, batch=6), 0, told.append)
    assert told == [6, 6]
    assert sampler.sample([], Sampling(), 0, told.append) == []


def test_batches_hold_the_answers_to_a_prompt_together_the_longest_first() -> None:
    ids: list[tuple[int, ...]] = [(1,), (1, 2, 3), (1, 2)]
    asked = prompts("a", "b", "c")
    rows = [[(each.prompt.id, each.first, each.count) for each in batch] for batch in plan_batches(
        asked, ids, Sampling(count=3, batch=6)
    )]  # fmt: skip
    assert rows == [[("file:2", 0, 3), ("file:3", 0, 3)], [("file:1", 0, 3)]]
    parts = plan_batches(asked[:1], ids[:1], Sampling(count=5, batch=2))
    assert [[(each.first, each.count) for each in batch] for batch in parts] == [[(0, 2)], [(2, 2)], [(4, 1)]]
