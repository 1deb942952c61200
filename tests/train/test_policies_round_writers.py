"""Writers of a round: answers of weights on disk, and KL from a reference against independent float64 code."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from client.standin import StandIn, reply, serving
from peft import PeftModel
from train.test_policies_rollouts_server_sampler import chat
from train.tiny_rounds import rounds_run
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.round_writers import Weights, count_prompts_at_once, open_writer

PROMPTS = [Prompt(f"file:{at}", ({"role": "user", "content": each},)) for at, each in enumerate(["why?", "a", "when?"])]


@pytest.fixture(scope="module")
def experts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("experts")
    return [tiny.expert(folder / name, base, name, seed).folder for seed, name in enumerate(("first", "second"), 1)]


@pytest.fixture
def run(base: Path, tmp_path: Path) -> ExpertRun:
    return rounds_run(base, tmp_path, "rejection")


@pytest.fixture
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base))


def read_exactly(base: Path, adapter: Path | None, prompt: list[int], answer: tuple[int, ...]) -> float:
    model: Any = AutoModelForCausalLM.from_pretrained(base).double()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).double()
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.parametrize(("reference", "policy"), [(None, 1), (0, 1), (None, None), (0, 0)])
def test_answers_and_log_probabilities_are_those_of_the_weights(
    reference: int | None, policy: int | None, base: Path, run: ExpertRun, renderer: Renderer, experts: list[Path]
) -> None:
    origin, weights = (Weights(base, None if at is None else experts[at]) for at in (reference, policy))
    writer = open_writer(run, weights, origin, renderer, run.sampling, 3)
    written = writer.write(PROMPTS)
    writer.close()
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    model = plain if weights.adapter is None else PeftModel.from_pretrained(plain, weights.adapter)
    own = ProcessSampler(model, renderer).sample(PROMPTS, run.sampling, 3, ignore_progress)
    assert [[each.sample.ids for each in row] for row in written] == [[each.ids for each in row] for row in own]
    for prompt, row in zip(PROMPTS, written, strict=True):
        ids = encode_prompt(renderer, prompt.messages, {})
        for each in row if weights == origin else row[:1]:
            exact = [read_exactly(base, folder.adapter, ids, each.sample.ids) for folder in (weights, origin)]
            assert [each.logprob, each.reference_logprob] == pytest.approx(exact, abs=1e-3)
    if weights == origin:
        assert all(each.logprob == each.reference_logprob for row in written for each in row)


def test_whole_weights_have_whole_weights_as_their_reference(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    run = rounds_run(base, tmp_path, "rejection", model={"lora": None})
    other = tiny.base(tmp_path / "other", seed=5)
    writer = open_writer(run, Weights(other), Weights(base), renderer, run.sampling, 0)
    (row,) = writer.write(PROMPTS[:1])
    writer.close()
    ids = encode_prompt(renderer, PROMPTS[0].messages, {})
    exact = [read_exactly(folder, None, ids, row[0].sample.ids) for folder in (other, base)]
    assert [row[0].logprob, row[0].reference_logprob] == pytest.approx(exact, abs=1e-3)
    assert all(each.logprob is None for each in row[1:])


def test_a_server_writes_without_log_probabilities(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    server = StandIn()
    with serving(server) as server.url:
        server.fail(reply(chat("a", "b")))
        run = rounds_run(
            base,
            tmp_path,
            "rejection",
            policy={"rounds": 1},
            sampling={"engine": "server", "url": server.url, "count": 2, "model": "m", "preferences": {"x": 1.0}},
        )
        writer = open_writer(run, Weights(base), Weights(base), renderer, run.sampling, 0)
        ((one, two),) = writer.write(PROMPTS[:1])
        writer.close()
    assert [(each.sample.text, each.logprob, each.reference_logprob) for each in (one, two)] == [
        ("a", None, None), ("b", None, None),
    ]  # fmt: skip
    asked = server.seen[0].json
    assert (asked["model"], asked["preferences"]) == ("m", {"x": 1.0})


def test_engines_that_batch_by_themselves_are_given_more_prompts_at_once(run: ExpertRun) -> None:
    sampling = run.sampling
    assert count_prompts_at_once(sampling) == 8
    assert count_prompts_at_once(sampling.model_copy(update={"engine": "vllm"})) == 256
    assert count_prompts_at_once(sampling.model_copy(update={"count": 100})) == 1
