"""The OpenAI routes: their shapes to the letter, our additions, streams, candidates, and every refusal."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, CountingEngine, expert, family

from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply

HI = [{"role": "user", "content": "hi"}]
CALM, FUNNY = {"calm": 1}, {"funny": 1}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
CASES = Path(__file__).parents[1] / "cases/requests"


def post(path: str, body: dict[str, Any], engine: CountingEngine | None = None) -> Any:
    with served(engine) as client:
        return client.post(path, json=body)


def chat(engine: CountingEngine | None = None, **body: Any) -> Any:
    reply = post(CHAT, {"messages": HI, **body}, engine)
    assert reply.status_code == 200, reply.text
    return reply.json()


def complete(engine: CountingEngine | None = None, **body: Any) -> Any:
    reply = post(TEXT, {"prompt": "hi", **body}, engine)
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(status: int, path: str = CHAT, engine: CountingEngine | None = None, **body: Any) -> Any:
    start: dict[str, Any] = {"messages": HI} if path == CHAT else {"prompt": "hi"}
    reply = post(path, {**start, **body}, engine)
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


def chunks(path: str = CHAT, engine: CountingEngine | None = None, **body: Any) -> list[Any]:
    """The events of a stream; the last is ``[DONE]`` or an error."""
    start: dict[str, Any] = {"messages": HI} if path == CHAT else {"prompt": "hi"}
    reply = post(path, {**start, **body, "stream": True}, engine)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [each if each == "[DONE]" else json.loads(each) for each in (event[6:] for event in events)]


# --------------------------------------------------------------------------- chat


def test_a_chat_has_openais_shape_and_our_additions() -> None:
    reply = chat(preferences={"calm": 2}, max_tokens=3)
    assert reply.pop("id").startswith("chatcmpl-")
    assert reply.pop("created") > 1_700_000_000
    assert reply.pop("system_fingerprint").startswith("fp_")
    usage = reply.pop("usage")
    assert (usage["completion_tokens"], usage["total_tokens"]) == (3, usage["prompt_tokens"] + 3)
    assert reply == {
        "object": "chat.completion",
        "model": "words",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "calm calm calm", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
                "preferences": {"calm": 1.0},
            }
        ],
        "preferences": {"calm": 1.0},
        "steering": {"method": "soup", "semantics": "delta", "normalize": "simplex"},
        "experts": {"calm": "calm-7"},
    }


def test_the_prompt_is_what_the_families_template_makes_of_the_messages() -> None:
    with served() as client:
        engine = client.app.state.server.engine  # type: ignore[attr-defined]
        ids = engine.families["words"].renderer.tokenize_prompt(HI)
        usage = client.post(CHAT, json={"messages": HI}).json()["usage"]
    assert usage["prompt_tokens"] == len(ids)


def test_n_choices_of_one_prompt() -> None:
    reply = chat(n=3, preferences={"calm": 1, "funny": 1}, seed=5)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in reply["choices"]}) > 1
    assert reply["usage"]["completion_tokens"] == 18
    assert reply["usage"]["prompt_tokens"] == chat()["usage"]["prompt_tokens"]


def test_choice_i_is_drawn_with_seed_plus_i() -> None:
    mix = {"calm": 1, "funny": 1}
    first = chat(n=3, preferences=mix, seed=5)["choices"]
    second = chat(n=2, preferences=mix, seed=6)["choices"]
    texts = [[choice["message"]["content"] for choice in choices] for choices in (first, second)]
    assert texts[0][1:] == texts[1]


def test_a_sweep_gives_a_choice_for_each_map() -> None:
    reply = chat(preferences=[CALM, FUNNY, {"calm": 1, "funny": 3}], n=2)
    assert [choice["preferences"] for choice in reply["choices"]] == [
        *[{"calm": 1.0}] * 2,
        *[{"funny": 1.0}] * 2,
        *[{"calm": 0.25, "funny": 0.75}] * 2,
    ]
    assert reply["preferences"] == [{"calm": 1.0}, {"funny": 1.0}, {"calm": 0.25, "funny": 0.75}]
    assert set(reply["experts"]) == {"calm", "funny"}
    assert reply["usage"]["prompt_tokens"] == chat()["usage"]["prompt_tokens"]


def test_logprobs_of_a_chat() -> None:
    content = chat(logprobs=True, top_logprobs=1, max_tokens=2, preferences=CALM)["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "calm",
        "logprob": -0.5,
        "bytes": [99, 97, 108, 109],
        "top_logprobs": [{"token": "other", "logprob": -9999.0, "bytes": [111, 116, 104, 101, 114]}],
    }
    assert len(content) == 2
    assert chat(logprobs=True, max_tokens=1)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert chat()["choices"][0]["logprobs"] is None


def test_the_fingerprint_covers_the_gate() -> None:
    prints = [chat(preferences=weights)["system_fingerprint"] for weights in (CALM, FUNNY, {"calm": 5})]
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_the_model_may_carry_the_weights() -> None:
    reply = chat(model="words:calm=0.25+funny=0.75")
    assert (reply["model"], reply["preferences"]) == ("words:calm=0.25+funny=0.75", {"calm": 0.25, "funny": 0.75})
    assert chat(model="words:playful")["preferences"] == {"funny": 1.0}
    assert chat(preset="playful")["preferences"] == {"funny": 1.0}


@pytest.mark.parametrize("case", json.loads((CASES / "mixes.json").read_text()), ids=lambda case: case["name"])
def test_a_mix_in_the_models_name_is_read_whole_or_refused(case: Any) -> None:
    engine = CountingEngine()
    experts = {name: expert(name) for name in ("academy", "literature")}
    engine.families = {"smollm2": replace(family("smollm2"), experts=experts, presets={})}
    wanted = case.get("status", 200)
    with served(engine) as client:
        for path, body in ((CHAT, {"messages": HI}), (TEXT, {"prompt": "hi"})):
            for stream in (False, True):
                reply = client.post(path, json={**body, "model": case["model"], "stream": stream, "max_tokens": 2})
                assert reply.status_code == wanted, reply.text
                if wanted == 400:
                    assert "add up to 0.7" in reply.json()["error"]["message"]
                elif not stream:
                    assert reply.json()["preferences"] == case["preferences"]
    assert chat()["preferences"] == {}


# --------------------------------------------------------------------------- candidates


def test_the_best_candidate_comes_with_its_rewards() -> None:
    engine = CountingEngine()
    body: dict[str, Any] = {
        "preferences": {"calm": 1, "funny": 1},
        "candidates": {"n": 8, "preferences": FUNNY},
        "seed": 1,
    }
    reply = chat(engine, **body)
    (choice,) = reply["choices"]
    written = [answer[0]["content"] for answer in engine.asked[0][0].answers]
    best = max(text.split().count("funny") for text in written)
    assert choice["rewards"] == {"funny": {"raw": best, "calibrated": best}}
    assert choice["reward"] == best
    assert choice["message"]["content"].split().count("funny") == best
    assert reply["usage"]["completion_tokens"] == 8 * 6


def test_the_judges_see_the_conversation() -> None:
    engine = CountingEngine()
    messages = [{"role": "system", "content": "s"}, *HI]
    chat(engine, messages=messages, preferences=CALM, candidates={"n": 2})
    assert engine.asked[0][0].prompt == messages


def test_all_candidates_on_request() -> None:
    reply = chat(preferences=CALM, candidates={"n": 3, "select": "all"}, n=2)
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    assert all(choice["rewards"]["calm"]["raw"] == 6 for choice in reply["choices"])


def test_a_soft_choice_is_seeded() -> None:
    body: dict[str, Any] = {
        "preferences": {"calm": 1, "funny": 1},
        "candidates": {"n": 4, "select": "soft", "preferences": FUNNY},
    }
    texts = [chat(**body, seed=11)["choices"][0]["message"]["content"] for _ in range(2)]
    assert texts[0] == texts[1]


# --------------------------------------------------------------------------- completions


def test_a_completion_has_openais_shape() -> None:
    reply = complete(preferences=CALM, max_tokens=2, logprobs=1)
    assert reply["id"].startswith("cmpl-")
    assert reply["object"] == "text_completion"
    assert reply["choices"] == [
        {
            "index": 0,
            "text": "calm calm",
            "logprobs": {
                "tokens": ["calm", " calm"],
                "token_logprobs": [-0.5, -0.5],
                "top_logprobs": [{"calm": -0.5, "other": -9999.0}, {" calm": -0.5, "other": -9999.0}],
                "text_offset": [0, 4],
            },
            "finish_reason": "length",
            "preferences": {"calm": 1.0},
        }
    ]
    assert complete()["choices"][0]["logprobs"] is None


def test_several_prompts_each_with_its_choices() -> None:
    reply = complete(prompt=["a", "b c d"], preferences=[CALM, FUNNY], max_tokens=1)
    assert [choice["text"] for choice in reply["choices"]] == ["calm", "funny"] * 2
    alone = [complete(prompt=prompt)["usage"]["prompt_tokens"] for prompt in ("a", "b c d")]
    assert reply["usage"]["prompt_tokens"] == sum(alone)


def test_candidates_of_a_completion_answer_a_user_who_said_the_prompt() -> None:
    engine = CountingEngine()
    reply = complete(engine, prompt=["a", "b"], preferences=CALM, candidates={"n": 2})
    (groups,) = engine.asked
    assert [group.prompt for group in groups] == [[{"role": "user", "content": prompt}] for prompt in ("a", "b")]
    assert [choice["reward"] for choice in reply["choices"]] == [2.5, 2.5]


def test_a_completion_is_sixteen_tokens_long_unless_told() -> None:
    engine = CountingEngine()
    complete(engine)
    assert engine.samplings[0].max_tokens == 16


# --------------------------------------------------------------------------- streams


def test_a_chat_stream_opens_with_the_role_and_ends_with_the_reason() -> None:
    first, *middle, last, done = chunks(preferences=CALM, max_tokens=2)
    assert done == "[DONE]"
    choice = first["choices"][0]
    assert choice["delta"] == {"role": "assistant", "content": ""}
    assert (choice["finish_reason"], choice["preferences"]) == (None, {"calm": 1.0})
    assert first["preferences"] == {"calm": 1.0}
    assert first["steering"]["method"] == "soup"
    assert first["experts"] == {"calm": "calm-7"}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in middle] == ["calm", " calm"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    everything = [first, *middle, last]
    assert {chunk["object"] for chunk in everything} == {"chat.completion.chunk"}
    assert (
        len({(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in everything}) == 1
    )
    assert all("preferences" not in chunk for chunk in everything[1:])
    assert all("usage" not in chunk for chunk in everything)


def test_choices_of_a_stream_come_interleaved_and_whole() -> None:
    *events, done = chunks(preferences=[CALM, FUNNY], n=2, max_tokens=3)
    assert done == "[DONE]"
    order = [event["choices"][0]["index"] for event in events]
    assert set(order) == {0, 1, 2, 3}
    assert order != sorted(order)
    texts = dict.fromkeys(range(4), "")
    for event in events:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "calm calm calm", 1: "calm calm calm", 2: "funny funny funny", 3: "funny funny funny"}
    roles = [event["choices"][0]["index"] for event in events if "role" in event["choices"][0]["delta"]]
    ends = [event["choices"][0]["index"] for event in events if event["choices"][0]["finish_reason"]]
    assert sorted(roles) == sorted(ends) == [0, 1, 2, 3]


def test_the_usage_comes_last_when_it_is_asked_for() -> None:
    *events, last, done = chunks(stream_options={"include_usage": True}, max_tokens=2)
    assert done == "[DONE]"
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    assert last["usage"] == chat(max_tokens=2)["usage"]


def test_logprobs_in_a_stream() -> None:
    _, piece, *_, last, _ = chunks(logprobs=True, max_tokens=2, preferences=CALM)
    assert piece["choices"][0]["logprobs"]["content"][0]["token"] == "calm"
    assert last["choices"][0]["logprobs"] is None
    *pieces, _, _ = chunks(TEXT, logprobs=1, max_tokens=3, preferences=CALM)
    assert [piece["choices"][0]["logprobs"]["text_offset"] for piece in pieces] == [[0], [4], [9]]


def test_a_completion_stream() -> None:
    *pieces, last, done = chunks(TEXT, max_tokens=2, preferences=CALM)
    assert done == "[DONE]"
    assert [piece["choices"][0]["text"] for piece in pieces] == ["calm", " calm"]
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "length")
    assert {piece["object"] for piece in [*pieces, last]} == {"text_completion"}


def test_an_error_before_the_first_token_has_its_status() -> None:
    engine = CountingEngine()
    engine.breaks_after = 0
    for path in (CHAT, TEXT):
        assert refused(503, path, engine, stream=True)["code"] == "engine_dead"


def test_an_error_in_the_middle_is_one_last_event() -> None:
    engine = CountingEngine()
    engine.breaks_after = 2
    *events, last = chunks(engine=engine)
    assert len(events) == 3
    assert last["error"]["code"] == "engine_dead"
    assert last["request_id"].startswith("req_")


def test_an_unexpected_one_does_not_leak() -> None:
    class Broken(CountingEngine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            async for delta in super().generate(*args, **kwargs):
                yield delta
                raise RuntimeError("sk-secret")

    *_, last = chunks(engine=Broken())
    assert last["error"]["type"] == "server_error"
    assert "sk-secret" not in last["error"]["message"]


# --------------------------------------------------------------------------- the client's types, and refusals


def test_the_clients_types_read_every_answer() -> None:
    reply = ChatReply.model_validate(chat(preferences=[CALM, FUNNY], candidates={"n": 2}))
    assert reply.choices[1].text.startswith("funny")
    assert reply.choices[1].rewards is not None
    assert CompletionReply.model_validate(complete(preferences=CALM)).text.startswith("calm")
    streamed = [ChatChunk.model_validate(event) for event in chunks(preferences=CALM)[:-1]]
    assert "".join(chunk.text for chunk in streamed).startswith("calm calm")


@pytest.mark.parametrize(
    ("status", "param", "body"),
    [
        (404, "model", {"model": "nobody"}),
        (404, "preset", {"preset": "dour"}),
        (400, "model", {"model": "words:calm=1", "preferences": FUNNY}),
        (400, "stream", {"stream": True, "candidates": {}, "preferences": CALM}),
        (400, "preferences.angry", {"preferences": {"angry": 1}}),
        (400, "preferences[1].calm", {"preferences": [CALM, {"calm": -1}]}),
        (400, "soup.semantics", {"model": "rigid", "soup": {"semantics": "factor"}}),
        (400, "desired_rewards", {"desired_rewards": CALM}),
        (400, "candidates.preferences", {"candidates": {}}),
        (400, "tools[0].name", {"tools": [{"type": "function"}]}),
        (400, "tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (400, "n", {"n": 0}),
        (400, "n", {"n": 64, "preferences": [CALM] * 5}),
        (400, "seed", {"seed": 2**70}),
        (400, "temperature", {"temperature": 3}),
        (400, "stop", {"stop": ""}),
        (400, "messages", {"messages": []}),
        (400, "messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        (400, "messages[1].role", {"messages": [*HI, {"role": "system", "content": "late"}]}),
        (400, "messages", {"messages": [{"role": "user", "content": "word " * CONTEXT}]}),
        (400, "max_tokens", {"max_tokens": CONTEXT}),
        (400, "mood", {"mood": "calm"}),
    ],
)
def test_every_refusal_names_its_field(status: int, param: str, body: dict[str, Any]) -> None:
    found = refused(status, **body)
    assert found["param"] == param
    assert found["message"]


def test_a_long_prompt_is_cut_when_that_is_asked_for() -> None:
    reply = chat(messages=[{"role": "user", "content": "word " * CONTEXT}], truncate=True, max_tokens=10)
    assert reply["usage"]["prompt_tokens"] == CONTEXT - 10


def test_before_the_models_are_there_it_is_a_503() -> None:
    engine = CountingEngine()
    engine.down = "expert calm: probe 1 differs"
    assert refused(503, CHAT, engine)["message"] == engine.down
