"""Every method of steering over tiny real models keeps one contract: soups, reward tags, and words, here or upstream.

Where `TUREEN_RUNTIME` is ``vllm``, the models run on vLLM.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import tiny
from fastapi import FastAPI
from serve.artifacts import build
from serve.border import listening_app, wait_for_models
from starlette.testclient import TestClient

from tureen_core.reward_tags import tag_messages, tag_text
from tureen_core.steering import PromptSteering, TaggedReward, TagSteering
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.app import create_app
from tureen_serve.settings import load_settings
from tureen_serve.telemetry import Metrics

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "why do leaves fall?"}]
GREEDY = {"max_tokens": 6, "temperature": 0}
SENTENCES = {"helpful": "the quick brown fox", "amusing": "jumps over the lazy dog"}
TAGS = TagSteering(
    family="tags",
    objectives=[
        TaggedReward(name=name, data="0" * 64, mean=0.5, deviation=2.0, low=-2.5, high=3.0)
        for name in ("helpful", "amusing")
    ],
)
WORDS = PromptSteering.model_validate({"family": "whole", "sentences": SENTENCES})
FAMILIES = ["tiny", "tags", "whole", "told", "far"]
STEERED = ["tags", "whole", "told", "far"]
BEHIND = """
families: [{name: plain, base: base}]
port: 0
runtime: transformers
dtype: float32
device: cpu
"""
MORE = """
  - {name: tags, policy: tags, presets: {still: {helpful: 1}}}
  - {name: whole, policy: whole, presets: {still: {helpful: 1}}}
  - name: told
    base: base
    steering: {sentences: {helpful: the quick brown fox, amusing: jumps over the lazy dog}}
    presets: {still: {helpful: 1}}
  - name: far
    upstream: {base_url: ADDRESS/v1, model: plain, honours: [seed, logprobs], concurrency: 3}
    steering: {sentences: {helpful: the quick brown fox, amusing: jumps over the lazy dog}}
    presets: {still: {helpful: 1}}
port: 0"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A soup, a LoRA that reads tags, whole weights that read words, and bases that are told what is wanted.

    One of these bases is behind another real server.
    """
    folder = tmp_path_factory.mktemp("artifacts")
    config = build(folder)
    tiny.policy(folder / "tags", folder / "base", TAGS, 20)
    tiny.policy(folder / "whole", folder / "base", WORDS, 21, whole=True)
    (folder / "behind.yaml").write_text(BEHIND)
    with listening_app(create_app(load_settings(folder / "behind.yaml"))) as address:
        config.write_text(config.read_text().replace("port: 0", MORE.strip("\n").replace("ADDRESS", address)))
        yield from serve(create_app(load_settings(config)))


def serve(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as found:
        wait_for_models(app, 900)
        assert found.get("/health/ready").json()["status"] == "ready"
        yield found


def weigh(family: str, first: float, second: float = 0.0) -> dict[str, float]:
    names = ("calm", "dry") if family == "tiny" else ("helpful", "amusing")
    return {name: weight for name, weight in zip(names, (first, second), strict=True) if weight}


def post(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ask(client: TestClient, family: str, **body: Any) -> Any:
    return post(client, CHAT, **{"model": family, "messages": ASK, **GREEDY, **body})


def texts(reply: Any) -> list[str]:
    return [choice["text"] if "text" in choice else choice["message"]["content"] for choice in reply["choices"]]


def told(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {name: choice[name] for name in ("preferences", "desired_rewards", "sentences") if name in choice}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_text_of_a_sweep_is_what_it_is_alone(client: TestClient, family: str) -> None:
    """So nothing computed for a prompt or a soup serves another one."""
    sweep = [weigh(family, 1), weigh(family, 1, 1), weigh(family, 0, 1)]
    swept = ask(client, family, preferences=sweep)
    alone = [ask(client, family, preferences=weights) for weights in sweep]
    assert texts(swept) == [text for each in alone for text in texts(each)]
    assert [told(choice) for choice in swept["choices"]] == [told(each["choices"][0]) for each in alone]
    assert [choice["preferences"] for choice in swept["choices"]] == swept["preferences"]
    assert len(set(texts(swept))) > 1
    assert len({each["system_fingerprint"] for each in (swept, *alone)}) == 4
    assert texts(ask(client, family, preferences=sweep)) == texts(swept)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_makes_a_text_again(client: TestClient, family: str) -> None:
    body = {"preferences": weigh(family, 1), "temperature": 1, "max_tokens": 8, "seed": 7, "n": 2}
    first, again = (texts(ask(client, family, **body)) for _ in range(2))
    assert first == again
    assert first[0] != first[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_is_the_text_and_its_logprobs(client: TestClient, family: str) -> None:
    body = {"preferences": weigh(family, 1, 2), "logprobs": True, "top_logprobs": 2}
    whole = ask(client, family, **body)
    sent = {"model": family, "messages": ASK, **GREEDY, **body, "stream": True}
    lines = client.post(CHAT, json=sent).text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events]
    assert ["".join(choice["delta"].get("content", "") for choice in choices)] == texts(whole)
    streamed = [each for choice in choices if choice["logprobs"] for each in choice["logprobs"]["content"]]
    assert [each["token"] for each in streamed] == [
        each["token"] for each in whole["choices"][0]["logprobs"]["content"]
    ]
    assert {"steering", "preferences", "experts"} <= set(events[0])
    assert (events[0]["steering"], events[0]["experts"]) == (whole["steering"], whole["experts"])
    assert told(choices[0]) == told(whole["choices"][0])
    assert {event["system_fingerprint"] for event in events} == {whole["system_fingerprint"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_best_of_several_is_the_best(client: TestClient, family: str) -> None:
    body = {"preferences": weigh(family, 1), "temperature": 1, "max_tokens": 5, "seed": 1}
    options = {"n": 5, "preferences": {"helpful": 1, "amusing": 1}}
    every = ask(client, family, **body, candidates={**options, "select": "all"})
    best = ask(client, family, **body, candidates=options)
    rewards = [choice["reward"] for choice in every["choices"]]
    assert best["choices"][0]["reward"] == pytest.approx(max(rewards), abs=1e-4)
    assert texts(best) == [texts(every)[rewards.index(max(rewards))]]


@pytest.mark.parametrize("family", FAMILIES)
def test_several_prompts_without_a_template(client: TestClient, family: str) -> None:
    sweep = [weigh(family, 1), weigh(family, 0, 1)]
    body = {"model": family, "max_tokens": 4, "temperature": 0}
    reply = post(client, TEXT, **body, prompt=["the quick", "why do"], preferences=sweep)
    alone = [
        post(client, TEXT, **body, prompt=prompt, preferences=weights)
        for prompt in ("the quick", "why do")
        for weights in sweep
    ]
    assert texts(reply) == [text for each in alone for text in texts(each)]
    read = [each["usage"]["prompt_tokens"] for each in alone]
    assert reply["usage"]["prompt_tokens"] == (sum(read) if family in STEERED else sum(read) // 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_name_and_a_preset_weigh_as_the_field_does(client: TestClient, family: str) -> None:
    weights = weigh(family, 1)
    suffix = "+".join(f"{name}={weight}" for name, weight in weights.items())
    ways: list[dict[str, Any]] = [
        {"preferences": weights},
        {"model": f"{family}:{suffix}"},
        {"model": f"{family}:still"},
        {"preset": "still"},
    ]
    replies = [ask(client, family, **way) for way in ways]
    assert [texts(each) for each in replies] == [texts(replies[0])] * 4
    assert len({each["system_fingerprint"] for each in replies}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_line_of_a_batch_is_what_the_route_answers(client: TestClient, family: str) -> None:
    body = {"model": family, "messages": ASK, **GREEDY, "preferences": [weigh(family, 1), weigh(family, 0, 1)]}
    journey = BATCH_ENDPOINTS[CHAT]
    engine = client.app.state.server.engine  # type: ignore[attr-defined]

    async def run() -> Any:
        return await journey.run(engine, Metrics(), [journey.body.model_validate(body)], 8)

    (answer,) = client.portal.call(run) if client.portal else asyncio.run(run())
    reply = ask(client, family, preferences=body["preferences"])
    assert [answer.body[name] for name in ("choices", "steering")] == [reply[name] for name in ("choices", "steering")]


def test_every_family_has_a_card_and_a_fingerprint_of_its_own(client: TestClient) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert {name: cards[name]["steering"] for name in FAMILIES} == {
        "tiny": ["soup"],
        "tags": ["reward-tags"],
        "whole": ["prompt"],
        "told": ["prompt"],
        "far": ["prompt"],
    }
    assert [cards[name]["objectives"] for name in STEERED] == [["helpful", "amusing"]] * 4
    assert cards["tags"]["ranges"]["amusing"] == {"low": -2.5, "high": 3.0, "mean": 0.5, "deviation": 2.0}
    assert cards["told"]["sentences"] == cards["whole"]["sentences"] == cards["far"]["sentences"] == SENTENCES
    assert [bool(cards[name]["version"]) for name in STEERED] == [True, True, False, False]
    assert [cards["far"][name] for name in ("base", "max_length")] == ["plain", None]
    assert cards["far"]["runtime"].startswith("upstream")
    assert cards["tags:still"]["presets"] == {"still": {"helpful": 1.0}}
    assert len({cards[name]["fingerprint"] for name in FAMILIES}) == 5


# --------------------------------------------------------------------------- what the prompt says


def test_tags_are_written_before_the_answer(client: TestClient) -> None:
    """The prompt's tokens are those of the messages with the tags in them."""
    reply = ask(client, "tags", preferences=weigh("tags", 1, 3))
    rewards = {"helpful": -0.8, "amusing": 2.7}  # low + w / ‖w‖₂ · (high − low)
    assert reply["steering"] == {"method": "reward-tags", "mapping": "l2", "desired_rewards": rewards}
    assert told(reply["choices"][0]) == {
        "preferences": {"amusing": 0.75, "helpful": 0.25},
        "desired_rewards": rewards,
    }
    renderer = client.app.state.server.engine.families["tags"].renderer  # type: ignore[attr-defined]
    assert reply["usage"]["prompt_tokens"] == len(renderer.tokenize_prompt(tag_messages(ASK, rewards, TAGS)))
    asked = ask(client, "tags", desired_rewards=rewards)
    assert (texts(asked), asked["system_fingerprint"]) == (texts(reply), reply["system_fingerprint"])
    assert (asked["preferences"], asked["steering"]["desired_rewards"]) == ({}, rewards)
    swept = ask(client, "tags", desired_rewards=[rewards, {"helpful": 3, "amusing": -2.5}])
    assert texts(swept)[:1] == texts(reply)
    assert swept["steering"]["desired_rewards"] == [rewards, {"helpful": 3.0, "amusing": -2.5}]


def test_tags_stand_in_a_rendered_prompt_where_they_stand_in_the_conversation(client: TestClient) -> None:
    rewards = {"helpful": 1.0, "amusing": 0.0}
    renderer = client.app.state.server.engine.families["tags"].renderer  # type: ignore[attr-defined]
    border = renderer.frame.turn_border
    rendered = renderer._write(ASK, "answer").text
    assert tag_text(rendered, rewards, TAGS, border).endswith(f"<rm2_score> 0.0{border}")
    plain = post(client, TEXT, model="tags", prompt=rendered, desired_rewards=rewards, **GREEDY)
    assert texts(plain) == texts(ask(client, "tags", desired_rewards=rewards))
    begun = client.post(TEXT, json={"model": "tags", "prompt": f"{rendered} Well,", "desired_rewards": rewards})
    assert (begun.status_code, begun.json()["error"]["param"]) == (400, "prompt")
    assert "before the answer" in begun.json()["error"]["message"]


def test_what_a_base_is_told_is_what_a_user_would_say(client: TestClient) -> None:
    reply = ask(client, "told", preferences={"amusing": 0.7, "helpful": 0.3})
    sentences = [SENTENCES["amusing"], SENTENCES["helpful"]]
    assert reply["steering"] == {"method": "prompt", "threshold": 0.1, "sentences": sentences}
    said = [{"role": "user", "content": " ".join([ASK[0]["content"], *sentences])}]
    plain = ask(client, "told", messages=said)
    assert (texts(plain), plain["usage"]) == (texts(reply), reply["usage"])
    assert (plain["preferences"], plain["steering"]["sentences"]) == ({}, [])
    assert texts(ask(client, "tiny", messages=said)) == texts(reply)  # the same base, without experts


def test_an_upstream_writes_what_the_same_base_writes_here(client: TestClient) -> None:
    """Its tokens are those that it counts, and what it says of itself stands in each choice."""
    body = {"preferences": weigh("far", 1, 2), "temperature": 1, "seed": 3, "n": 2}
    far, told_here = ask(client, "far", **body), ask(client, "told", **body)
    if "vllm" not in client.get("/health").json()["runtime"]:
        assert texts(far) == texts(told_here)
    assert far["usage"]["prompt_tokens"] == 2 * told_here["usage"]["prompt_tokens"]  # it is asked for each text
    assert far["usage"]["completion_tokens"] == 12
    assert [choice["upstream"]["model"] for choice in far["choices"]] == ["plain"] * 2
    assert all(choice["upstream"]["system_fingerprint"].startswith("fp_") for choice in far["choices"])
    assert not any("upstream" in choice for choice in told_here["choices"])
    assert far["system_fingerprint"] != told_here["system_fingerprint"]


def test_a_policy_writes_by_its_own_weights(client: TestClient) -> None:
    """The LoRA and the whole weights are not the base that they stand beside."""
    whole, base = (ask(client, name, preferences=weigh(name, 1), logprobs=True) for name in ("whole", "told"))
    assert whole["usage"]["prompt_tokens"] == base["usage"]["prompt_tokens"]
    tagged = tag_messages(ASK, {"helpful": 3.0, "amusing": -2.5}, TAGS)
    tags = ask(client, "tags", preferences=weigh("tags", 1), logprobs=True)
    plain = ask(client, "tiny", messages=tagged, logprobs=True)
    assert tags["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    for one, other in ((whole, base), (tags, plain)):
        found = [each["choices"][0]["logprobs"]["content"][0]["logprob"] for each in (one, other)]
        assert abs(found[0] - found[1]) > 1e-3
    assert (list(tags["experts"]), list(whole["experts"]), base["experts"]) == (["tags"], ["whole"], {})


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"model": "tags", "desired_rewards": {"helpful": 3.1, "amusing": 0}}, "desired_rewards.helpful", "-2.5 to 3"),
        ({"model": "tags", "desired_rewards": {"helpful": 3.0}}, "desired_rewards.amusing", "give all of them"),
        ({"model": "told", "desired_rewards": {"helpful": 1.0}}, "desired_rewards", "send `preferences`"),
        ({"model": "tiny", "desired_rewards": {"calm": 1.0}}, "desired_rewards", "send `preferences`"),
        ({"model": "tags", "preferences": {"kind": 1}}, "preferences.kind", "known: amusing, helpful"),
        ({"model": "tags", "messages": [{"role": "assistant", "content": "x"}]}, "messages", "no message of the user"),
    ],
)
def test_what_cannot_be_asked_for_is_named(client: TestClient, body: dict[str, Any], param: str, says: str) -> None:
    reply = client.post(CHAT, json={"messages": ASK, **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert says in reply.json()["error"]["message"]


def test_the_memory_of_prompts_keeps_what_they_say_apart(client: TestClient) -> None:
    """One prompt under many preferences, twice and in two orders: each text depends on its own prompt alone."""
    sweep = [{"helpful": at / 10, "amusing": 1 - at / 10} for at in range(11)]
    first = ask(client, "tags", preferences=sweep)
    again = ask(client, "tags", preferences=sweep[::-1])
    assert texts(first) == texts(again)[::-1]
    assert len({json.dumps(each) for each in first["steering"]["desired_rewards"]}) > 6
