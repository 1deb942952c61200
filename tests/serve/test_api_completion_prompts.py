"""Prompts as texts and as token ids, repeated in the reply, with the log-probabilities of their tokens."""

import json
from dataclasses import replace
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, RENDERER, CountingEngine, steered_family

from tureen_core.steering import PromptSteering

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
CALM = {"calm": 1}
TOKENIZER = RENDERER.tokenizer


def post(body: dict[str, Any], path: str = TEXT, engine: CountingEngine | None = None) -> Any:
    with served(engine) as client:
        return client.post(path, json=body)


def complete(engine: CountingEngine | None = None, **body: Any) -> Any:
    reply = post({"prompt": "hi", "preferences": CALM, **body}, engine=engine)
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(engine: CountingEngine | None = None, path: str = TEXT, **body: Any) -> Any:
    start = {"prompt": "hi"} if path == TEXT else {"messages": [{"role": "user", "content": "hi"}]}
    reply = post({**start, **body}, path, engine)
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


def names(ids: list[int]) -> list[str]:
    return [TOKENIZER.decode([each]) for each in ids]


def test_an_echo_with_logprobs_is_what_lm_eval_sends_and_reads() -> None:
    ids = encode("the quick brown fox")
    body: dict[str, Any] = {
        "prompt": [ids, ids[:2]],
        "max_tokens": 1,
        "logprobs": 1,
        "echo": True,
        "temperature": 0,
        "seed": 1234,
    }
    first, second = complete(**body)["choices"]
    assert first["text"] == "the quick brown foxcalm"
    told = first["logprobs"]
    assert told["tokens"] == [*names(ids), "calm"]
    assert told["token_logprobs"] == [None, *(-each / 100 for each in ids[1:]), -0.5]
    best = TOKENIZER.decode([8])
    assert told["top_logprobs"][0] is None
    assert told["top_logprobs"][1:-1] == [
        {name: value, best: -0.008}
        for name, value in zip(told["tokens"][1:-1], told["token_logprobs"][1:-1], strict=True)
    ]
    assert [first["text"][at:].startswith(token) for at, token in zip(told["text_offset"], told["tokens"], strict=True)]
    assert told["text_offset"][-1] == len("the quick brown fox")
    assert len(second["logprobs"]["tokens"]) == 3


def test_with_max_tokens_0_a_prompt_is_only_read() -> None:
    engine = CountingEngine()
    reply = complete(engine, prompt="a b", max_tokens=0, logprobs=2, echo=True)
    (choice,) = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a b", "length")
    assert len(choice["logprobs"]["token_logprobs"]) == len(encode("a b")) == reply["usage"]["prompt_tokens"]
    assert reply["usage"]["completion_tokens"] == 0
    assert [each.max_tokens for each in engine.samplings] == [0]


def test_what_is_only_read_counts_in_the_metrics_and_the_quota() -> None:
    with served() as client:
        client.post(TEXT, json={"prompt": "a b", "max_tokens": 0, "echo": True})
        metrics = client.get("/metrics").text
    assert f'tureen_tokens_total{{direction="in",model="words"}} {len(encode("a b"))}.0' in metrics


def test_an_echo_without_logprobs_repeats_the_text_as_it_was_sent() -> None:
    (choice,) = complete(prompt="naïve 猫", echo=True, max_tokens=2)["choices"]
    assert (choice["text"], choice["logprobs"]) == ("naïve 猫calm calm", None)
    assert complete(prompt=encode("naïve 猫"), echo=True, max_tokens=2)["choices"][0]["text"] == "naïve 猫calm calm"


def test_logprobs_without_an_echo_are_those_of_the_new_tokens() -> None:
    (choice,) = complete(logprobs=1, max_tokens=2)["choices"]
    assert choice["logprobs"]["tokens"] == ["calm", " calm"]
    assert "prompt_logprobs" not in choice


def test_prompt_logprobs_are_as_vllm_writes_them() -> None:
    ids = encode("the quick")
    (choice,) = complete(prompt=ids, prompt_logprobs=1, max_tokens=1)["choices"]
    first, *others = choice["prompt_logprobs"]
    assert first is None
    for each, entries in zip(ids[1:], others, strict=True):
        assert list(entries.items())[0] == (
            str(each),
            {"logprob": -each / 100, "rank": 3, "decoded_token": TOKENIZER.decode([each])},
        )
        assert entries["8"] == {"logprob": -0.008, "rank": 1, "decoded_token": TOKENIZER.decode([8])}
    assert choice["text"] == "calm"
    asked = {"messages": [{"role": "user", "content": "hi"}], "prompt_logprobs": 0, "max_tokens": 1}
    (choice,) = post(asked, CHAT).json()["choices"]
    assert choice["prompt_logprobs"][0] is None
    assert all(len(each) == 1 for each in choice["prompt_logprobs"][1:])


def test_an_echo_and_prompt_logprobs_may_ask_for_different_numbers() -> None:
    (choice,) = complete(prompt="a b", echo=True, logprobs=0, prompt_logprobs=2, max_tokens=0)["choices"]
    assert [len(each) for each in choice["prompt_logprobs"][1:]] == [3] * (len(encode("a b")) - 1)
    assert [len(each) for each in choice["logprobs"]["top_logprobs"][1:]] == [1] * (len(encode("a b")) - 1)


def test_every_soup_of_a_sweep_and_every_choice_has_its_own_echo() -> None:
    reply = complete(prompt=["a", "b"], preferences=[CALM, {"funny": 1}], n=2, echo=True, logprobs=0, max_tokens=1)
    assert [choice["text"] for choice in reply["choices"]] == [
        f"{prompt}{word}" for prompt in "ab" for word in ("calm", "calm", "funny", "funny")
    ]


def test_tokens_may_be_written_as_ids() -> None:
    ids = encode("the quick")
    body: dict[str, Any] = {
        "prompt": ids,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 0,
        "return_tokens_as_token_ids": True,
    }
    told = complete(**body)["choices"][0]["logprobs"]
    assert told["tokens"] == [f"token_id:{each}" for each in ids]
    assert set(told["top_logprobs"][1]) == {f"token_id:{ids[1]}", "token_id:8"}
    assert (
        told["text_offset"]
        == complete(**{**body, "return_tokens_as_token_ids": False})["choices"][0]["logprobs"]["text_offset"]
    )


def test_a_stream_begins_with_the_prompt_and_its_logprobs() -> None:
    ids = encode("the quick")
    body: dict[str, Any] = {
        "prompt": ids,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 2,
        "stream": True,
        "preferences": CALM,
    }
    events = [json.loads(each[6:]) for each in post(body).text.split("\n\n") if each.startswith("data: {")]
    pieces = [event["choices"][0] for event in events]
    whole = complete(**{**body, "stream": False})["choices"][0]
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    for name, told in whole["logprobs"].items():
        assert [each for piece in pieces if piece["logprobs"] for each in piece["logprobs"][name]] == told


def test_a_cut_prompt_is_echoed_as_it_was_read() -> None:
    ids = encode("a") * (CONTEXT + 50)
    reply = complete(prompt=ids, echo=True, logprobs=0, max_tokens=1, truncate=True)
    assert len(reply["choices"][0]["logprobs"]["tokens"]) == CONTEXT
    assert reply["choices"][0]["text"] == TOKENIZER.decode(ids[: CONTEXT - 1]) + "calm"


def test_candidates_of_ids_answer_a_user_who_said_their_text() -> None:
    engine = CountingEngine()
    complete(engine, prompt=encode("the quick"), candidates={"n": 2})
    (groups,) = engine.asked
    assert [group.prompt for group in groups] == [[{"role": "user", "content": "the quick"}]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 10**6]}, "prompt"),
        ({"prompt": [[1], [10**6]]}, "prompt[1]"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [1] * (CONTEXT + 1), "max_tokens": 0}, "prompt"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields)["param"] == param


def test_a_prompt_may_fill_the_context_if_nothing_is_written() -> None:
    assert complete(prompt=[5] * CONTEXT, max_tokens=0)["usage"]["prompt_tokens"] == CONTEXT


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [5, 6]}, "prompt"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ],
)
def test_a_policy_that_is_steered_in_its_prompt_tells_no_numbers_of_other_tokens(fields: Any, param: str) -> None:
    engine = CountingEngine()
    steering = PromptSteering.model_validate(
        {"family": "told", "sentences": {"calm": "Be calm.", "funny": "Be funny."}}
    )
    engine.families = {"told": steered_family(steering)}
    assert refused(engine, preferences=CALM, **fields)["param"] == param
    assert post({"prompt": "hi", **fields}, engine=engine).status_code == 200
    assert complete(engine, echo=True, max_tokens=1)["choices"][0]["text"].startswith("hi")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [5, 6]}, "prompt"),
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"add_special_tokens": False}, "add_special_tokens"),
    ],
)
def test_an_upstream_is_asked_for_nothing_that_needs_its_tokens(fields: Any, param: str) -> None:
    engine = CountingEngine()
    engine.families = {"words": replace(engine.families["words"], renderer=None, context=0)}
    assert refused(engine, **fields)["param"] == param
    if param == "prompt_logprobs":
        assert refused(engine, CHAT, **fields)["param"] == param
    assert post({"prompt": "hi"}, engine=engine).status_code == 200
