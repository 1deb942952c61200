"""NeMo-Gym under ``/gym``: rollouts come back with their rewards, and what cannot be scored is no reward of 0.

The bodies are those of NeMo-Gym's own tests (NVIDIA-NeMo/Gym, ``responses_api_agents/simple_agent/tests``), which is
not on PyPI.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, native, real_server, troubled

from tureen_serve.inference.engine import Group

ONE = {"model": "calm"}
QUESTION = "Capital of France?"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


def message(*texts: str, role: str = "assistant", kind: str = "output_text") -> dict[str, Any]:
    parts = [{"type": kind, "text": text, "annotations": []} for text in texts]
    return {"id": "message-1", "type": "message", "role": role, "status": "completed", "content": parts}


REASONING = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}], "content": None}


def rollout(*output: Any, given: Any = QUESTION, **params: Any) -> dict[str, Any]:
    """What an agent posts to ``/verify``."""
    return {
        "responses_create_params": {"input": given, "model": None, "temperature": 1.0, **params},
        "response": {
            "id": "terminal-response",
            "created_at": 1.0,
            "model": "model",
            "object": "response",
            "output": list(output),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {"input_tokens": 7, "output_tokens": 3},
            "metadata": {"terminal_call_id": "call-1"},
        },
        "task_id": "task-1",
        "_ng_task_index": 4,
        "_ng_rollout_index": 2,
        "verifier_metadata": {"expected": "Paris", "nested": [{"labels": ["a", None, 3]}]},
    }


INPUTS = [QUESTION, [{"role": "user", "content": QUESTION}], [message(QUESTION, role="user", kind="input_text")]]


@pytest.mark.parametrize("given", INPUTS, ids=["text", "message", "parts"])
def test_a_rollout_comes_back_as_it_was_with_its_reward(address: str, given: Any) -> None:
    body = rollout(REASONING, message("Par", "is"), given=given)
    reply = httpx2.post(f"{address}/gym/verify", params={"model": "helpful"}, json=body).json()
    (expected,) = native(address, QUESTION, ["Paris"])
    assert reply.pop("reward") == pytest.approx(expected["helpful"], abs=1e-4)
    assert reply.pop("reward_components") == {"helpful": pytest.approx(expected["helpful"], abs=1e-4)}
    assert json.dumps(reply, sort_keys=True) == json.dumps(body, sort_keys=True)


def test_a_mix_comes_with_what_it_is_made_of(address: str) -> None:
    params = {"model": "helpful=0.7,amusing=0.3"}
    reply = httpx2.post(f"{address}/gym/verify", params=params, json=rollout(message("Paris"))).json()
    body = {"items": [{"prompt": QUESTION, "candidates": ["Paris"]}], "preferences": {"helpful": 0.7, "amusing": 0.3}}
    native = httpx2.post(f"{address}/v1/score", json=body).json()["data"][0]["candidates"][0]
    assert reply["reward"] == pytest.approx(native["reward"], abs=1e-4)
    expected = {name: score["raw"] for name, score in native["scores"].items()}
    assert reply["reward_components"] == pytest.approx(expected, abs=1e-4)


def test_instructions_and_turns_are_the_prompt_and_messages_the_answer() -> None:
    engine = CountingEngine()
    given = [
        {"role": "user", "content": "hi"},
        message("hello"),
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "more"}]},
    ]
    with served(engine) as client:
        body = rollout(REASONING, message("calm "), message("calm"), given=given, instructions="be calm")
        assert client.post("/gym/verify", params=ONE, json=body).json()["reward"] == 2.0
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    roles = ["system", "user", "assistant", "user"]
    texts = ["be calm", "hi", "hello", "more"]
    assert group.prompt == [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    assert group.answers == [[{"role": "assistant", "content": "calm calm", "reasoning_content": "hm"}]]


def test_a_developer_is_the_system_and_a_refusal_is_an_answer() -> None:
    engine = CountingEngine()
    refusal = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "calm no"}]}
    given = [{"role": "developer", "content": "be calm"}, {"role": "user", "content": "hi"}]
    with served(engine) as client:
        reply = client.post("/gym/verify", params=ONE, json=rollout(refusal, given=given))
    assert reply.json()["reward"] == 1.0
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    assert group.prompt[0] == {"role": "system", "content": "be calm"}


def test_an_answer_of_several_turns_is_scored_whole() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        body = rollout(message("which?"), message("the calm one", role="user"), message("calm"))
        assert client.post("/gym/verify", params=ONE, json=body).json()["reward"] == 1.0
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    assert [turn["role"] for turn in group.answers[0]] == ["assistant", "user", "assistant"]


def test_thoughts_without_an_answer_are_an_empty_answer(address: str) -> None:
    """The policy ran out of tokens: that is its doing, and the reward model says what it is worth."""
    reply = httpx2.post(f"{address}/gym/verify", params={"model": "helpful"}, json=rollout(REASONING)).json()
    (expected,) = native(address, QUESTION, [""])
    assert reply["reward"] == pytest.approx(expected["helpful"], abs=1e-4)


def test_what_is_too_long_is_refused_or_cut_as_asked(address: str) -> None:
    body = rollout(message(LONG))
    refused = httpx2.post(f"{address}/gym/verify", params={"model": "helpful"}, json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "response.output"]
    cut = httpx2.post(f"{address}/gym/verify", params={"model": "helpful", "truncate": "true"}, json=body).json()
    (expected,) = native(address, QUESTION, [LONG], truncate=True)
    assert cut["reward"] == pytest.approx(expected["helpful"], abs=1e-4)


CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
SEARCH = {"type": "web_search_call", "id": "s", "status": "completed"}
IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (rollout(), "response.output"),
    (rollout(SEARCH, message("calm")), "response.output[0]"),
    (rollout({**CALL, "name": ""}, message("calm")), "response.output[0].tool_calls[0].name"),
    (rollout(message("calm"), tools=[{"type": "web_search"}]), "responses_create_params.tools[0].type"),
    (rollout(message("calm", role="user")), "response.output"),
    (rollout(message("calm"), given=[IMAGE]), "responses_create_params.input[0].content"),
    (rollout(message("calm"), given=[]), "responses_create_params.input"),
    (rollout(message("calm"), given=3), "responses_create_params.input"),
    ({"response": {"output": [message("calm")]}}, "responses_create_params"),
    ({"responses_create_params": {"input": "hi"}}, "response"),
]


@pytest.mark.parametrize(("body", "field"), REFUSED)
def test_what_cannot_be_read_is_an_error_that_names_the_field(body: dict[str, Any], field: str) -> None:
    with served() as client:
        reply = client.post("/gym/verify", params=ONE, json=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", field]
    assert "reward" not in reply.json()


def test_an_error_of_the_prompt_is_laid_to_it(address: str) -> None:
    body = rollout(message("Paris"), given=[{"role": "wizard", "content": "a"}])
    reply = httpx2.post(f"{address}/gym/verify", params={"model": "helpful"}, json=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", "responses_create_params.input[0].role"]


@pytest.mark.parametrize(("trouble", "status"), TROUBLES.items())
def test_trouble_is_an_error_and_no_reward(trouble: str, status: int) -> None:
    with troubled(trouble) as client:
        reply = client.post("/gym/verify", params=ONE, json=rollout(message("calm")))
    assert reply.status_code == status
    assert set(reply.json()) == {"detail"}


def test_a_reward_that_is_not_finite_is_an_error_and_several_are_too_many() -> None:
    with served() as client:
        infinite = client.post("/gym/verify", params=ONE, json=rollout(message("boundless")))
        several = client.post("/gym/verify", params={"model": "calm,funny"}, json=rollout(message("calm")))
    assert (infinite.status_code, several.status_code) == (500, 422)
    assert infinite.json()["detail"] == "response.output: the reward calm of this text is not finite"
    assert several.json()["detail"][0]["loc"] == ["body", "model"]


def test_a_session_is_nothing_but_its_name() -> None:
    session = {"resources_session_id": "s-1", "episode_id": "e", "task_id": "t", "task_data": {}}
    with served() as client:
        assert client.post("/gym/seed_session", json=session).json() == {"resources_session_id": "s-1"}
        assert client.post("/gym/seed_session", json={"responses_create_params": {}}).json() == {}
        assert client.post("/gym/close_session", json=session).json() == {"resources_session_id": "s-1"}
        assert client.get("/gym/reverify_mode").json() == "stateless"


def test_metrics_are_of_every_number_for_each_task_and_over_all() -> None:
    rows = [
        {
            "_ng_task_index": 1,
            "_ng_rollout_index": 0,
            "reward": 1.0,
            "reward_components": {"calm": 2.0},
            "solved": True,
        },
        {"_ng_task_index": 0, "_ng_rollout_index": 0, "reward": 3.0, "response": {"usage": {"output_tokens": 5}}},
        {"_ng_task_index": 0, "_ng_rollout_index": 1, "reward": 5.0, "solved": False, "name": "x"},
    ]
    with served() as client:
        found = client.post("/gym/aggregate_metrics", json={"verify_responses": rows}).json()
    first, second = found["group_level_metrics"]
    assert (first["_ng_task_index"], first["mean/reward"], first["max/reward"]) == (0, 4.0, 5.0)
    assert first["std/reward"] == pytest.approx(2**0.5)
    assert (second["std/reward"], second["median/calm"]) == (0.0, 2.0)
    assert found["agent_metrics"]["min/reward"] == 1.0
    assert found["key_metrics"] == {
        "mean/reward": 3.0,
        "mean/calm": 2.0,
        "mean/solved": 0.5,
        "mean/output_tokens": 5.0,
    }


def test_no_rollouts_have_no_metrics() -> None:
    with served() as client:
        found = client.post("/gym/aggregate_metrics", json={"verify_responses": []}).json()
    assert found == {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}


def test_a_key_is_asked_for_in_fastapis_shape(tmp_path: Any) -> None:
    body = rollout(message("calm"))
    with locked(tmp_path) as client:
        refused = client.post("/gym/verify", params=ONE, json=body)
        assert (refused.status_code, list(refused.json())) == (401, ["detail"])
        known = {"authorization": f"Bearer {KEY}"}
        assert client.post("/gym/verify", params=ONE, json=body, headers=known).json()["reward"] == 1.0


@pytest.mark.parametrize("field", ["summary", "encrypted_content"])
def test_a_lone_surrogate_in_reasoning_goes_back_as_it_came(field: str) -> None:
    body = json.dumps(rollout({"type": "reasoning", "id": "r", field: [{"text": "\ud800"}]}, message("calm")))
    headers = {"content-type": "application/json"}
    with served() as client:
        reply = client.post("/gym/verify", params=ONE, content=body, headers=headers)
    assert reply.status_code == 200
    assert reply.json()["reward"] == 1.0
    assert reply.json()["response"]["output"][0][field] == [{"text": "\ud800"}]


def test_calls_and_their_outputs_are_turns_of_the_answer() -> None:
    engine = CountingEngine()
    output = {"type": "function_call_output", "call_id": "call_1", "output": "calm"}
    with served(engine) as client:
        body = rollout(CALL, {**CALL, "call_id": "call_2"}, output, message("calm"), tools=[])
        reply = client.post("/gym/verify", params=ONE, json=body)
    assert "does not render `tool_calls`" in reply.text
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    first, second, third = group.answers[0]
    assert [call["id"] for call in first["tool_calls"]] == ["call_1", "call_2"]
    assert second == {"role": "tool", "content": "calm", "tool_call_id": "call_1"}
    assert third == {"role": "assistant", "content": "calm"}
