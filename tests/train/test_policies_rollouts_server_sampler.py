"""Answers of a real server against the same weights in this process, and what failures become."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.standin import StandIn, refusal, reply, serving
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tureen import Client
from tureen.errors import ServerFault, Unauthorized, Unavailable
from tureen.retry import Retries
from tureen_core.base import load_tokenizer
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_serve.app import create_app
from tureen_serve.settings import FamilyEntry, Settings
from tureen_train.config import RecipeError, Sampling
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.rollouts.server_sampler import ServerSampler

QUICK = Retries(limit=2, first=0.01, most=0.02, outage=0)
PROMPTS = [Prompt(f"file:{at}", ({"role": "user", "content": each},)) for at, each in enumerate(["why?", "a", "when?"])]


def readable_base(folder: Path) -> Path:
    """A tiny base whose likeliest tokens are no parts of characters, since a server writes only whole ones."""
    model = AutoModelForCausalLM.from_pretrained(tiny.base(folder))
    tokenizer = load_tokenizer(folder)
    parts = [token for token in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([token])]
    model.get_input_embeddings().weight.data[parts] = 0.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("family")
    base = readable_base(folder / "base")
    return base, tiny.expert(folder / "academy", base, "academy", seed=1).folder


@pytest.fixture(scope="module")
def url(expert: tuple[Path, Path]) -> Iterator[str]:
    families = [FamilyEntry(name="tiny", experts=[expert[1]])]
    app = create_app(Settings(families=families, dtype="float32", device="cpu"))
    with serving(app, lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


@pytest.fixture
def standin() -> Iterator[StandIn]:
    server = StandIn()
    with serving(server) as server.url:
        yield server


def test_a_tureen_server_writes_the_answers_of_its_weights(url: str, expert: tuple[Path, Path]) -> None:
    base, folder = expert
    sampling = Sampling(count=1, max_tokens=12, temperature=0)
    served = ServerSampler(url, "tiny", {"academy": 1.0}).sample(PROMPTS, sampling, 0, ignore_progress)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    own = ProcessSampler(model, Renderer(load_tokenizer(base), Reading())).sample(PROMPTS, sampling, 0, ignore_progress)
    for mine, theirs in zip(own, served, strict=True):
        assert [(each.prompt, each.number, each.text, each.finished) for each in theirs] == [
            (each.prompt, each.number, each.text, each.finished) for each in mine
        ]
        assert theirs[0].ids == theirs[0].logprobs == ()


def test_a_seed_gives_the_same_answers_and_another_seed_others(url: str) -> None:
    sampler, told = ServerSampler(url, "tiny", {"academy": 1.0}), list[int]()
    sampling = Sampling(count=3, max_tokens=8, batch=6)
    first = sampler.sample(PROMPTS, sampling, 5, told.append)
    assert told == [3, 3, 3]
    assert [[each.number for each in own] for own in first] == [[0, 1, 2]] * 3
    assert sampler.sample(PROMPTS[::-1], sampling, 5, ignore_progress)[::-1] == first
    assert sampler.sample(PROMPTS, sampling, 6, ignore_progress) != first
    assert len({each.text for each in first[0]}) == 3


def test_a_request_says_all_settings(standin: StandIn) -> None:
    standin.fail(reply(chat("a", "b")))
    sampling = Sampling(count=2, max_tokens=9, temperature=0.5, top_p=0.9)
    ((one, two),) = ServerSampler(standin.url, "m", retries=QUICK).sample(PROMPTS[:1], sampling, 0, ignore_progress)
    asked = standin.seen[0].json
    told = {name: asked[name] for name in ("model", "n", "temperature", "top_p", "max_tokens")}
    assert told == {"model": "m", "n": 2, "temperature": 0.5, "top_p": 0.9, "max_tokens": 9}
    assert asked["messages"] == [{"role": "user", "content": "why?"}]
    assert ((one.text, one.finished), (two.text, two.finished)) == (("a", True), ("b", False))


def test_more_answers_than_one_request_may_ask_for_take_several(standin: StandIn) -> None:
    standin.fail(reply(chat(*["x"] * 64)), reply(chat(*["y"] * 6)))
    sampling = Sampling(count=70, batch=70)
    (found,) = ServerSampler(standin.url, None, retries=QUICK).sample(PROMPTS[:1], sampling, 0, ignore_progress)
    assert [each.number for each in found] == list(range(70))
    assert [each.json["n"] for each in standin.seen] == [64, 6]
    assert len({each.json["seed"] for each in standin.seen}) == 2


def test_a_server_that_is_busy_is_asked_again(standin: StandIn) -> None:
    standin.fail(refusal(503, "overloaded"), reply(chat("a")))
    sampling = Sampling(count=1)
    (found,) = ServerSampler(standin.url, None, retries=QUICK).sample(PROMPTS[:1], sampling, 0, ignore_progress)
    assert found[0].text == "a"
    assert len(standin.seen) == 2


@pytest.mark.parametrize(
    ("fault", "error"), [(refusal(503, "overloaded"), Unavailable), (refusal(401, "invalid_api_key"), Unauthorized)]
)
def test_an_error_that_stays_ends_the_run(fault: Any, error: type[Exception], standin: StandIn) -> None:
    standin.fail(*[fault] * 99)
    with pytest.raises(error):
        ServerSampler(standin.url, None, retries=QUICK).sample(PROMPTS, Sampling(count=1), 0, ignore_progress)


def test_fewer_answers_than_asked_for_are_an_error(standin: StandIn) -> None:
    standin.fail(reply(chat("a")))
    with pytest.raises(ServerFault, match="1 answers where 2 were asked for"):
        ServerSampler(standin.url, None, retries=QUICK).sample(PROMPTS[:1], Sampling(count=2), 0, ignore_progress)


def test_a_prompt_with_tools_is_refused(standin: StandIn) -> None:
    tools = [Prompt("file:9", PROMPTS[0].messages, template_arguments={"tools": [{}]})]
    with pytest.raises(RecipeError, match="file:9 has tools"):
        ServerSampler(standin.url, None).sample(tools, Sampling(count=1), 0, ignore_progress)
    assert standin.seen == []


def chat(*texts: str) -> dict[str, Any]:
    """A reply with these answers; the last of several was cut."""
    choices = [
        {
            "index": at,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if at and at == len(texts) - 1 else "stop",
        }
        for at, text in enumerate(texts)
    ]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
