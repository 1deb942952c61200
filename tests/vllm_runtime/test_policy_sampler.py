"""Answers that vLLM writes for a policy in training, against the same weights under transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.config import Sampling
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.rollouts.vllm_sampler import VllmSampler

SAMPLING = Sampling(count=3, max_tokens=10, max_prompt=64, batch=8, temperature=0.8, top_k=50)
QUESTIONS = ("why?", "why do leaves fall in autumn?", "a")
PROMPTS = [Prompt(f"file:{at}", ({"role": "user", "content": each},)) for at, each in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), Reading())


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.expert(tmp_path_factory.mktemp("expert") / "a", base, "academy", seed=1).folder


@pytest.fixture(scope="module")
def model(base: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


@pytest.fixture(scope="module")
def sampler(base: Path, adapter: Path, renderer: Renderer) -> Iterator[VllmSampler]:
    made = VllmSampler(base, adapter, 4, renderer, SAMPLING, half=False)
    yield made
    made.close()


def test_the_likeliest_answers_are_those_of_transformers(sampler: VllmSampler, model: Any, renderer: Renderer) -> None:
    greedy = SAMPLING.model_copy(update={"temperature": 0.0, "count": 1})
    told: list[int] = []
    found = sampler.sample(PROMPTS, greedy, 0, told.append)
    wanted = ProcessSampler(model, renderer).sample(PROMPTS, greedy, 0, ignore_progress)
    assert [each[0].ids for each in found] == [each[0].ids for each in wanted]
    assert [(each[0].text, each[0].finished) for each in found] == [(each[0].text, each[0].finished) for each in wanted]
    assert sum(told) == 3


def test_log_probabilities_are_the_models_own(sampler: VllmSampler, model: Any, renderer: Renderer) -> None:
    for prompt, samples in zip(PROMPTS, sampler.sample(PROMPTS, SAMPLING, 0, ignore_progress), strict=True):
        ids = encode_prompt(renderer, prompt.messages, {})
        for sample in samples:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*ids, *sample.ids]])).logits[0, len(ids) - 1 : -1]
            own = logits.log_softmax(-1).gather(1, torch.tensor(sample.ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(sample.logprobs), own, rtol=0, atol=1e-3)


def test_answers_follow_their_seeds_and_end_as_asked(sampler: VllmSampler) -> None:
    first = sampler.sample(PROMPTS, SAMPLING, 0, ignore_progress)
    assert [
        [each.ids for each in own] for own in sampler.sample(PROMPTS[::-1], SAMPLING, 0, ignore_progress)[::-1]
    ] == [[each.ids for each in own] for own in first]
    assert sampler.sample(PROMPTS, SAMPLING, 1, ignore_progress) != first
    assert len({each.ids for each in first[0]}) == 3
    many = SAMPLING.model_copy(update={"count": 40, "min_tokens": 3, "temperature": 1.5, "top_k": 0})
    answers = [each for own in sampler.sample(PROMPTS, many, 0, ignore_progress) for each in own]
    assert 0 < sum(each.finished for each in answers) < len(answers)
    for each in answers:
        assert (each.ids[-1] in sampler.ends) == each.finished
        assert 3 <= len(each.ids) <= 10
    assert sampler.sample([], SAMPLING, 0, ignore_progress) == []
