"""The module of policy, critic and reference: what it reads of answers, against the sampler and plain transformers."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from train.tiny_ppo import make_model, make_texts, ppo_run
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, Sampling
from tureen_train.networks.policy_model import load_policy_model
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.actor_critic import ActorCritic, Figures
from tureen_train.policies.ppo.critic import find_critic_start, make_critic
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.token_logprobs import collate_answers

TEXTS = make_texts([(7, 5), (7, 3), (4, 1)])


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> ExpertRun:
    return ppo_run(base, tmp_path_factory.mktemp("run"))


@torch.no_grad()
def read(model: ActorCritic, role: Any = "watched", texts: list[EncodedAnswer] = TEXTS) -> Figures:
    found: Figures = model.eval()(answers=collate_answers(texts, [0, 0, 1], 0), role=role)
    return found


@torch.no_grad()
def plain_logits(base: Path, text: EncodedAnswer) -> Tensor:
    """By transformers alone, of the tokens of an answer, in float64."""
    logits: Tensor = AutoModelForCausalLM.from_pretrained(base)(torch.tensor([text.ids])).logits
    return logits[0, text.start - 1 : -1].double()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_figures_are_those_of_transformers_at_the_sampler_s_temperature(
    temperature: float, run: ExpertRun, base: Path
) -> None:
    model = make_model(run, base)
    model.temperature = temperature
    found = read(model)
    start = 0
    for text in TEXTS:
        logs = torch.log_softmax(plain_logits(base, text) / temperature, -1)
        size = len(text.answer)
        own = logs[torch.arange(size), torch.tensor(text.answer)]
        assert found.logprobs[start : start + size].tolist() == pytest.approx(own.tolist(), abs=1e-4)
        entropies = -(logs.exp() * logs).sum(-1)
        assert found.entropies[start : start + size].tolist() == pytest.approx(entropies.tolist(), abs=1e-4)
        start += size
    assert read(model, "reference").logprobs.equal(found.logprobs)


def test_an_answer_has_the_likelihood_with_which_it_was_drawn(run: ExpertRun, base: Path) -> None:
    """The sampler and the learner agree on what each token's log-probability is: same ids, same places."""
    model = make_model(run, base, 0.2)
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))
    prompt = Prompt("a:1", ({"role": "user", "content": "why do leaves fall?"},))
    sampling = Sampling(count=3, max_tokens=6)
    (samples,) = ProcessSampler(model.policy, renderer).sample([prompt], sampling, 5, lambda _: None)
    head = tuple(renderer.tokenize_prompt(list(prompt.messages)))
    texts = [EncodedAnswer((*head, *sample.ids), len(head)) for sample in samples]
    drawn = [each for sample in samples for each in sample.logprobs]
    assert read(model, "learner", texts).logprobs.tolist() == pytest.approx(drawn, abs=1e-4)
    assert (
        max(abs(one - other) for one, other in zip(drawn, read(model, "reference", texts).logprobs, strict=True)) > 0.1
    )


def test_dropout_is_off_in_training(run: ExpertRun, base: Path) -> None:
    model = make_model(run, base, 0.2)
    extra = torch.nn.Dropout(0.5)
    whole = ActorCritic(torch.nn.Sequential(extra), model.critic, model.policy.disable_adapter)
    assert extra.p == 0
    assert whole.train()(input=torch.ones(8)).tolist() == [1.0] * 8


def test_the_reference_of_whole_weights_is_a_frozen_copy(run: ExpertRun, base: Path) -> None:
    whole = run.model_copy(update={"model": run.model.model_copy(update={"lora": None})})
    policy, reference = (load_policy_model(base, whole.model) for _ in range(2))
    critic = make_critic(find_critic_start(whole, base), whole, tiny.reading(base))
    model = ActorCritic(policy, critic, reference.requires_grad_(False))
    before = read(model, "reference").logprobs
    assert before.equal(read(model).logprobs)
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.5)
    assert before.equal(read(model, "reference").logprobs)
    assert not torch.allclose(before, read(model).logprobs, atol=0.1)
    trained = {name.partition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"policy", "critic"}


def test_without_answers_it_is_the_policy(run: ExpertRun, base: Path) -> None:
    model = make_model(run, base, 0.2)
    ids = torch.tensor([TEXTS[0].ids])
    assert model(input_ids=ids).logits.equal(model.policy(input_ids=ids).logits)
    assert model.device == torch.device("cpu")
