"""Every sampling field over a tiny real model, against transformers' own generation of the same model.

Where `TUREEN_RUNTIME` is ``vllm``, the server's model runs on vLLM.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.border import wait_for_models
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from tureen_serve.app import create_app
from tureen_serve.settings import load_settings

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
CONFIG = """
families: [{name: tiny, experts: [calm, dry]}]
port: 0
dtype: float32
device: cpu
"""
PROMPT = "why do leaves fall? the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("artifacts")
    tiny.base(found / "base")
    for seed, name in enumerate(("calm", "dry"), 10):
        tiny.expert(found / name, found / "base", name, seed)
    (found / "server.yaml").write_text(CONFIG)
    return found


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    app = create_app(load_settings(folder / "server.yaml"))
    with TestClient(app) as found:
        wait_for_models(app, 900)
        yield found


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ids() -> list[int]:
    found: list[int] = tiny.tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]
    return found


def post(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json={"model": "tiny", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def write(client: TestClient, ids: list[int], **body: Any) -> list[int]:
    """The ids of a greedy text."""
    body = {"temperature": 0, "max_tokens": 24, **body}
    reply = post(client, TEXT, prompt=ids, logprobs=0, return_tokens_as_token_ids=True, **body)
    (choice,) = reply["choices"]
    return [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]


def generate(model: Any, ids: list[int], **options: Any) -> list[int]:
    """The ids that transformers writes greedily."""
    prompt = torch.tensor([ids])
    options = {"max_new_tokens": 24, "do_sample": False, **options}
    with torch.no_grad():
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    written: list[int] = found[0, len(ids) :].tolist()
    return written


def list_drawn(client: TestClient, ids: list[int], **body: Any) -> set[int]:
    """The first tokens of many texts."""
    reply = post(
        client, TEXT, prompt=ids, logprobs=0, return_tokens_as_token_ids=True, max_tokens=1, n=64, seed=5, **body
    )
    return {int(choice["logprobs"]["tokens"][0].removeprefix("token_id:")) for choice in reply["choices"]}


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.2, 3.0])
def test_the_repetition_penalty_is_transformers(client: TestClient, model: Any, ids: list[int], penalty: float) -> None:
    expected = generate(model, ids, repetition_penalty=penalty)
    assert write(client, ids, repetition_penalty=penalty) == expected


def test_the_repetition_penalty_changes_a_text(client: TestClient, ids: list[int]) -> None:
    assert write(client, ids, repetition_penalty=3.0) != write(client, ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 7, "top_p": 0.5},
        {"min_p": 1.0},
        {"min_p": 0.5},
        {"min_p": 0.5, "top_k": 6, "temperature": 0.8, "repetition_penalty": 1.5},
    ],
)
def test_only_the_tokens_are_drawn_that_the_fields_leave(
    client: TestClient, model: Any, ids: list[int], fields: dict[str, Any]
) -> None:
    """The allowed set is computed in float64, in vLLM's order, from the logits of transformers."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, -1].double()
    said = torch.tensor(sorted(set(ids)))
    penalty = fields.get("repetition_penalty", 1.0)
    scores[said] = torch.where(scores[said] > 0, scores[said] / penalty, scores[said] * penalty)
    chances = (scores / fields.get("temperature", 2.0)).softmax(-1)
    chances[chances < fields.get("min_p", 0.0) * chances.max()] = 0
    if "top_k" in fields:
        chances[chances < chances.sort(descending=True).values[fields["top_k"] - 1]] = 0
    chances /= chances.sum()
    order = chances.argsort(descending=True)
    chances[order[chances[order].cumsum(0) - chances[order] >= fields.get("top_p", 1.0)]] = 0
    allowed = set(chances.nonzero().flatten().tolist())
    found = list_drawn(client, ids, **{"temperature": 2.0, **fields})
    assert found <= allowed
    assert len(found) >= min(len(allowed), 3)


@pytest.mark.parametrize("fields", [{"top_k": 0}, {"top_k": -1}, {"min_p": 0.0}, {"repetition_penalty": 1.0}])
def test_neutral_values_change_nothing(client: TestClient, ids: list[int], fields: dict[str, Any]) -> None:
    body = {"temperature": 1.3, "seed": 11}
    assert write(client, ids, **body, **fields) == write(client, ids, **body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_k", 2**31),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", 101),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(client: TestClient, field: str, value: float) -> None:
    for path, more in ((TEXT, {"prompt": "a"}), (CHAT, {"messages": [{"role": "user", "content": "a"}]})):
        reply = client.post(path, json={"model": "tiny", **more, field: value})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)


def test_a_sweep_and_candidates_have_them_too(client: TestClient) -> None:
    """With ``top_k`` 1 any temperature writes what greedy decoding writes, under each soup."""
    sweep = [{"calm": 1}, {"calm": 1, "dry": 1}, {"dry": 1}]
    body = {"messages": [{"role": "user", "content": "why?"}], "max_tokens": 8, "preferences": sweep}
    greedy = post(client, CHAT, **body, temperature=0)
    drawn = post(client, CHAT, **body, temperature=1.5, top_k=1, seed=3)
    found, expected = ([choice["message"]["content"] for choice in each["choices"]] for each in (drawn, greedy))
    assert found == expected
    assert len(set(found)) > 1


# --------------------------------------------------------------------------- how a text ends

BACKEND: Any = tiny.tokenizer().backend_tokenizer
EOS: int = tiny.tokenizer().eos_token_id
ALWAYS_ENDS = {str(EOS): 100.0}


@pytest.mark.parametrize("least", [0, 2, 3, 9])
def test_a_stop_token_and_the_least_length_are_transformers(
    client: TestClient, model: Any, ids: list[int], least: int
) -> None:
    stop = generate(model, ids)[2]
    ends = {"eos_token_id": [EOS, stop], "min_new_tokens": least}
    expected = generate(model, ids, **ends)
    assert expected[-1] == stop or len(expected) == 24
    assert write(client, ids, stop_token_ids=[stop], min_tokens=least) == expected


def test_a_stop_token_is_shown_where_it_is_asked_for(client: TestClient, ids: list[int]) -> None:
    (stop,) = BACKEND.encode("a", add_special_tokens=False).ids
    body = {"prompt": ids, "temperature": 0, "max_tokens": 9, "stop_token_ids": [stop], "logit_bias": {str(stop): 100}}
    for more, shown in (({}, ""), ({"include_stop_str_in_output": True}, "a")):
        reply = post(client, TEXT, **body, **more)
        assert (reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]) == (shown, "stop")
        assert reply["usage"]["completion_tokens"] == 1


def test_marks_of_the_end_are_ignored_and_shown_where_that_is_asked_for(client: TestClient, ids: list[int]) -> None:
    body = {"prompt": ids, "temperature": 0, "max_tokens": 5, "logit_bias": ALWAYS_ENDS}
    reply = post(client, TEXT, **body)
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 1)
    reply = post(client, TEXT, **body, ignore_eos=True)
    assert (reply["choices"][0]["finish_reason"], reply["choices"][0]["text"]) == ("length", "")
    assert reply["usage"]["completion_tokens"] == 5
    mark = tiny.tokenizer().eos_token
    reply = post(client, TEXT, **body, ignore_eos=True, skip_special_tokens=False)
    assert reply["choices"][0]["text"] == mark * 5
    for shown, text in ((False, ""), (True, mark)):
        reply = post(client, TEXT, **body, skip_special_tokens=False, include_stop_str_in_output=shown)
        assert (reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]) == (text, "stop")


def test_an_end_comes_at_once_after_the_least_length(client: TestClient, ids: list[int]) -> None:
    body = {"prompt": ids, "temperature": 1, "seed": 3, "max_tokens": 20, "logit_bias": ALWAYS_ENDS}
    reply = post(client, TEXT, **body, min_tokens=7)
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 8)


def test_a_stop_text_counts_after_the_least_length_and_is_shown_on_demand(client: TestClient, ids: list[int]) -> None:
    body = {"prompt": ids, "temperature": 0, "max_tokens": 12}
    text = post(client, TEXT, **body)["choices"][0]["text"]
    stop = next(each for each in text[1:] if text.index(each) > 0)
    at = text.index(stop)
    for more, shown in (({}, text[:at]), ({"include_stop_str_in_output": True}, text[: at + 1])):
        (choice,) = post(client, TEXT, **body, stop=[stop], **more)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (shown, "stop")
        events = client.post(TEXT, json={"model": "tiny", **body, "stop": [stop], **more, "stream": True}).text
        pieces = [json.loads(line[6:]) for line in events.split("\n\n") if line.startswith("data: {")]
        assert "".join(piece["choices"][0]["text"] for piece in pieces) == shown
    (choice,) = post(client, TEXT, **body, stop=[stop], min_tokens=12)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")


def test_a_text_without_room_for_its_least_length_is_refused_by_name(client: TestClient) -> None:
    for body in ({"max_tokens": 4, "min_tokens": 5}, {"min_tokens": 17}, {"min_tokens": 600, "max_tokens": 600}):
        reply = client.post(TEXT, json={"model": "tiny", "prompt": "a", **body})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == ("max_tokens" if body["min_tokens"] == 600 else "min_tokens")
    reply = client.post(CHAT, json={"model": "tiny", "messages": [{"role": "user", "content": "a"}], "min_tokens": 600})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "min_tokens")


@pytest.mark.parametrize("ids_", [[-1], [10**6], ["a"], [1.5]])
def test_stop_tokens_that_are_none_are_refused(client: TestClient, ids_: list[Any]) -> None:
    reply = client.post(TEXT, json={"model": "tiny", "prompt": "a", "stop_token_ids": ids_})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("stop_token_ids")


# --------------------------------------------------------------------------- beside a grammar


def test_a_grammar_ends_a_text_before_its_least_length(client: TestClient) -> None:
    """The text satisfies its grammar, whatever else is asked for."""
    body = {"prompt": "a", "temperature": 1, "seed": 1, "max_tokens": 30, "structured_outputs": {"regex": "[ab]{3}"}}
    more = {"min_tokens": 20, "stop_token_ids": [EOS], "top_k": 3, "min_p": 0.2, "repetition_penalty": 2.0}
    for each in ({}, more):
        (choice,) = post(client, TEXT, **body, **each)["choices"]
        assert re.fullmatch("[ab]{3}", choice["text"])
        assert choice["finish_reason"] == "stop"
    longer = post(client, TEXT, **{**body, "structured_outputs": {"regex": "[ab]*"}}, min_tokens=20)
    assert len(longer["choices"][0]["text"]) >= 20
    assert re.fullmatch("[ab]*", longer["choices"][0]["text"])


# a greedy text of the tiny model is white space without end wherever a grammar allows that
SHAPE = {
    "type": "object",
    "properties": {
        "a": {"enum": ["x", "y"]},
        "b": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "shape", "schema": SHAPE}}},
        {"structured_outputs": {"json": SHAPE}},
    ],
)
def test_a_greedy_json_text_ends_and_is_valid(client: TestClient, ids: list[int], fields: dict[str, Any]) -> None:
    (choice,) = post(client, TEXT, prompt=ids, temperature=0, max_tokens=120, **fields)["choices"]
    found = json.loads(choice["text"])
    assert choice["finish_reason"] == "stop"
    assert found["a"] in ("x", "y")
    assert [type(each) for each in found["b"]] == [bool, bool]


def test_white_space_of_any_object_is_bound_unless_asked_for(client: TestClient, ids: list[int]) -> None:
    body = {"prompt": ids, "temperature": 0, "max_tokens": 40}
    (choice,) = post(client, TEXT, **body, response_format={"type": "json_object"})["choices"]
    assert re.match(r'\{("|\})', choice["text"])
    free = {"json_object": True, "disable_any_whitespace": False}
    (choice,) = post(client, TEXT, **body, structured_outputs=free)["choices"]
    assert re.match(r"\{\s", choice["text"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"ignore_eos": True}, "ignore_eos"),
        ({"stop_token_ids": [EOS, 70]}, "stop_token_ids"),
        ({"include_stop_str_in_output": True, "skip_special_tokens": False}, "include_stop_str_in_output"),
    ],
)
def test_what_would_break_a_grammar_is_refused(client: TestClient, fields: dict[str, Any], param: str) -> None:
    body = {"model": "tiny", "prompt": "a", "structured_outputs": {"regex": "[ab]{3}"}, **fields}
    reply = client.post(TEXT, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


# --------------------------------------------------------------------------- a prompt that breaks off in a character


def test_the_text_after_a_broken_character_is_its_own(client: TestClient) -> None:
    whole: list[int] = tiny.tokenizer()("the quick brown 猫", add_special_tokens=False)["input_ids"]
    for cut in (1, 2):
        body = {"prompt": whole[:-cut], "temperature": 1.0, "max_tokens": 12, "seed": cut, "logprobs": 0}
        (choice,) = post(client, TEXT, **body, return_tokens_as_token_ids=True)["choices"]
        written = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
        assert choice["text"].rstrip("\ufffd") == BACKEND.decode(written).rstrip("\ufffd")
        assert "quick" not in choice["text"]


# --------------------------------------------------------------------------- prefill, usage and what is ignored

ASKED = {"role": "user", "content": "why do leaves fall?"}
BEGUN = {"role": "assistant", "content": "the quick "}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"add_generation_prompt": True}),
        ({"add_generation_prompt": False}, {}),
        ({"add_generation_prompt": False, "continue_final_message": True}, {"continue_final_message": True}),
        ({"continue_final_message": True}, {"continue_final_message": True}),
    ],
)
def test_a_chat_goes_on_where_transformers_ends_its_prompt(
    client: TestClient, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    body = {"temperature": 0, "max_tokens": 8}
    reply = post(client, CHAT, **body, messages=[ASKED, BEGUN], **fields)
    prompt = tiny.tokenizer().apply_chat_template([ASKED, BEGUN], tokenize=False, **options)
    plain = post(client, TEXT, **body, prompt=prompt, add_special_tokens=False)
    assert reply["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    assert reply["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


def test_a_message_that_is_continued_keeps_its_marks_as_text(client: TestClient) -> None:
    mark = tiny.tokenizer().eos_token
    begun = {"role": "assistant", "content": f"the {mark} fox"}
    plain = {"role": "assistant", "content": "the fox"}
    found, other = (
        post(client, CHAT, messages=[ASKED, each], continue_final_message=True, max_tokens=1, temperature=0)
        for each in (begun, plain)
    )
    assert found["usage"]["prompt_tokens"] > other["usage"]["prompt_tokens"] + 1


def test_usage_grows_in_each_chunk(client: TestClient) -> None:
    body = {"model": "tiny", "messages": [ASKED], "max_tokens": 5, "n": 2, "seed": 1, "stream": True}
    body["logit_bias"] = {str(EOS): -100}
    options = {"include_usage": True, "continuous_usage_stats": True}
    lines = client.post(CHAT, json={**body, "stream_options": options}).text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for index in (0, 1):
        counts = [each["usage"] for each in events if each["choices"] and each["choices"][0]["index"] == index]
        made = [each["completion_tokens"] for each in counts]
        assert made == sorted(made)
        assert (made[0], made[-1]) == (0, 5)
        assert all(each["total_tokens"] == each["prompt_tokens"] + each["completion_tokens"] for each in counts)
    assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 10)
    assert {each["usage"]["prompt_tokens"] for each in events} == {events[-1]["usage"]["prompt_tokens"]}


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_effect_is_told_in_a_header(client: TestClient, stream: bool) -> None:
    body = {"model": "tiny", "messages": [ASKED], "max_tokens": 4, "temperature": 0, "stream": stream}
    told = client.post(CHAT, json={**body, "store": True, "verbosity": "low", "reasoning_effort": "high"})
    plain = client.post(CHAT, json=body)
    assert told.headers["x-tureen-ignored"] == "reasoning_effort, store, verbosity"
    assert "x-tureen-ignored" not in plain.headers
    if not stream:
        assert told.json()["choices"] == plain.json()["choices"]


def test_the_best_of_several_are_the_likeliest(client: TestClient, ids: list[int]) -> None:
    """In the order of their mean log-probability, of each prompt and each soup alone."""
    prompts, sweep = [ids, ids[:4]], [{"calm": 1}, {"dry": 1}]
    body = {"prompt": prompts, "preferences": sweep, "max_tokens": 6, "temperature": 1.5, "seed": 9}
    every = post(client, TEXT, **body, n=5, logprobs=0)
    best = post(client, TEXT, **body, n=2, best_of=5)
    expected = []
    for at in range(0, 20, 5):
        group = every["choices"][at : at + 5]
        means = [sum(each["logprobs"]["token_logprobs"]) / len(each["logprobs"]["tokens"]) for each in group]
        order = sorted(range(5), key=lambda index: -means[index])
        expected += [group[index]["text"] for index in order[:2]]
    assert [choice["text"] for choice in best["choices"]] == expected
    assert [choice["preferences"] for choice in best["choices"]] == [sweep[0]] * 2 + [sweep[1]] * 2 + [sweep[0]] * 2 + [
        sweep[1]
    ] * 2
    assert all(choice["logprobs"] is None for choice in best["choices"])
    assert best["usage"] == every["usage"]


@pytest.mark.parametrize("more", [{"n": 3}, {"stream": True}, {"candidates": {"n": 2}}])
def test_what_best_of_cannot_be_with_is_refused(client: TestClient, more: dict[str, Any]) -> None:
    reply = client.post(TEXT, json={"model": "tiny", "prompt": "a", "best_of": 2, **more})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "best_of")
