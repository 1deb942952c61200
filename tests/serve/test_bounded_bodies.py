"""The work that a body costs before it is refused, on every route: counted, not timed."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from serve.border import Caller, application, running, served
from serve.counting import CountingEngine
from starlette.testclient import TestClient
from waiting import wait_until

from tureen.wire import MAX_CANDIDATES, MAX_ITEMS, MAX_MESSAGES, MAX_TEXTS, Many, Message, ScoreItem
from tureen_serve.api import reward_plan, strict_route
from tureen_serve.dialects import gym
from tureen_serve.inference.pieces import AbandonedError, run_pieces
from tureen_serve.strict_json import parse_json

ITEM = {"prompt": "hi", "candidates": ["calm"]}
TURN = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served(aliases={"default": "calm"}) as found:
        yield found


@pytest.fixture(scope="module")
def strict() -> Iterator[TestClient]:
    """A server that reads texts of 100 bytes."""
    with served(aliases={"default": "calm"}, limits={"text_bytes": 100}) as found:
        yield found


def error_of(client: TestClient, path: str, body: Any) -> dict[str, Any]:
    reply = client.post(path, json=body)
    assert reply.status_code in (400, 413, 422), reply.text[:200]
    found = reply.json()
    return (
        {"status": reply.status_code, "told": json.dumps(found), **found.get("error", {})}
        if (isinstance(found.get("error"), dict))
        else {"status": reply.status_code, "told": json.dumps(found)}
    )


def list_schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every list in a core schema."""
    if isinstance(node, dict):
        if node.get("type") == "list":
            yield node
        for each in node.values():
            yield from list_schemas(each)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from list_schemas(each)


def test_every_list_of_every_body_stops_at_its_first_mistake() -> None:
    careless = [
        (route.path, schema.get("items_schema"))
        for route in application(CountingEngine()).routes
        if isinstance(route, APIRoute) and route.body_field is not None
        for schema in list_schemas(route.body_field._type_adapter.core_schema)
        if not schema.get("fail_fast") and schema.get("items_schema", {"type": "any"})["type"] != "any"
    ]
    assert careless == []


def test_a_list_is_counted_before_its_values_are_looked_at_and_stops_at_the_first_wrong_one() -> None:
    looks: list[Any] = []

    def look(value: Any) -> Any:
        looks.append(value)
        return value

    listed = TypeAdapter(Annotated[list[Annotated[int, BeforeValidator(look)]], Many(10, least=2)])
    with pytest.raises(ValidationError, match="at most 10 items"):
        listed.validate_python([1] * 11)
    assert looks == []
    with pytest.raises(ValidationError) as caught:
        listed.validate_python(["a"] * 10)
    assert (looks, caught.value.error_count()) == (["a"], 1)
    with pytest.raises(ValidationError, match="at least 2"):
        listed.validate_python([1])
    assert listed.json_schema() == {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 10}


@pytest.mark.parametrize("on_error", ["fail", "item"])
@pytest.mark.parametrize("path", ["/v1/score", "/v1/preferences"])
@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([{}] * (MAX_ITEMS + 1), f"{MAX_ITEMS + 1} items and the limit is {MAX_ITEMS}"),
        ([{"prompt": "a", "candidates": ["b"] * 256}] * 65, f"16640 candidates and steps and the limit is {MAX_TEXTS}"),
        ([{"prompt": "a", "steps": ["b"] * 256}] * 65, f"16640 candidates and steps and the limit is {MAX_TEXTS}"),
    ],
)
def test_items_and_their_texts_are_counted_before_any_is_validated(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, on_error: str, items: list[Any], says: str
) -> None:
    validated: list[Any] = []
    monkeypatch.setattr(ScoreItem, "model_validate", validated.append)
    found = error_of(client, path, {"items": items, "on_error": on_error})
    assert (found["status"], found["param"]) == (422, "items")
    assert says in found["message"]
    assert validated == []


def test_an_item_with_too_many_candidates_is_an_error_of_its_own(client: TestClient) -> None:
    items = [{"prompt": "a", "candidates": ["b"] * (MAX_TEXTS + 1)}, ITEM]
    first, second = client.post("/v1/score", json={"items": items, "on_error": "item"}).json()["data"]
    assert f"at most {MAX_CANDIDATES} items, not {MAX_TEXTS + 1}" in first["error"]["message"]
    assert second["candidates"][0]["scores"]


MANY_TURNS = [TURN] * (MAX_MESSAGES + 1)
MANY_TEXTS = ["x"] * (MAX_TEXTS + 1)
ROLLOUT = {"input": [{"role": "user", "content": "x"}] * (MAX_MESSAGES + 1)}
TOO_MANY: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", {"messages": MANY_TURNS}),
    "conversation": ("/v1/score", {"items": [{"messages": MANY_TURNS}]}),
    "prompt": ("/v1/score", {"items": [{"prompt": MANY_TURNS, "candidates": ["a"]}]}),
    "completions": ("/v1/completions", {"prompt": ["a"] * 257}),
    "responses": ("/v1/responses", {"input": MANY_TURNS}),
    "vllm texts": ("/classify", {"input": MANY_TEXTS}),
    "vllm ids": ("/classify", {"input": [[1]] * (MAX_TEXTS + 1)}),
    "vllm messages": ("/vllm/pooling", {"messages": MANY_TURNS}),
    "vllm pairs": ("/score", {"queries": "q", "documents": MANY_TEXTS}),
    "vllm ranks": ("/rerank", {"query": "q", "documents": MANY_TEXTS}),
    "vllm tokens": ("/tokenize", {"messages": MANY_TURNS}),
    "openrlhf": ("/get_reward", {"query": MANY_TEXTS}),
    "tei texts": ("/tei/predict", {"inputs": MANY_TEXTS}),
    "tei ranks": ("/tei/rerank", {"query": "q", "texts": MANY_TEXTS}),
    "sglang texts": ("/sglang/classify", {"text": MANY_TEXTS}),
    "sglang embeddings": ("/sglang/v1/embeddings", {"input": MANY_TEXTS}),
    "sglang items": ("/sglang/v1/score", {"query": "q", "items": MANY_TEXTS}),
    "sglang ranks": ("/sglang/v1/rerank", {"query": "q", "documents": MANY_TEXTS}),
    "slime": ("/slime", {"prompt": MANY_TURNS, "response": "a"}),
    "gym": ("/gym/verify", {"responses_create_params": ROLLOUT, "response": {"output": [{}]}}),
    "llamafactory": ("/llamafactory/v1/score/evaluation", {"model": "calm", "messages": MANY_TEXTS}),
    "infinity texts": ("/infinity/classify", {"input": MANY_TEXTS}),
    "infinity ranks": ("/infinity/rerank", {"query": "q", "documents": MANY_TEXTS}),
}


@pytest.mark.parametrize("case", TOO_MANY)
def test_every_route_bounds_its_lists_before_they_are_validated(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    rendered: list[Any] = []
    monkeypatch.setattr(Message, "plain", lambda self: rendered.append(self))
    path, body = TOO_MANY[case]
    found = error_of(client, path, body)
    assert "at most" in found["told"]
    assert len(found["told"]) < 1000
    assert rendered == []


LONG = "x" * 101
TOO_LONG: dict[str, tuple[str, Any, str]] = {
    "score": ("/v1/score", {"items": [ITEM, {"prompt": "hi", "candidates": ["a", LONG]}]}, "items[1].candidates[1]"),
    "labels": ("/v1/preferences", {"items": [{"prompt": LONG, "candidates": ["a", "b"]}]}, "items[0].prompt"),
    "chat": ("/v1/chat/completions", {"messages": [TURN, {"role": "user", "content": LONG}]}, "messages[1].content"),
    "completions": ("/v1/completions", {"prompt": ["a", LONG]}, "prompt[1]"),
    "responses": ("/v1/responses", {"input": [TURN, {"role": "user", "content": LONG}]}, "input[1].content"),
    "vllm": ("/classify", {"input": LONG}, "input"),
    "vllm tokens": ("/tokenize", {"prompt": LONG}, "prompt"),
    "openrlhf": ("/get_reward", {"query": ["a", LONG]}, "query[1]"),
    "tei": ("/tei/rerank", {"query": "q", "texts": [LONG]}, "texts[0]"),
    "sglang": ("/sglang/classify", {"text": LONG}, "text"),
    "sglang score": ("/sglang/v1/score", {"query": LONG, "items": ["a"]}, "query"),
    "slime": ("/slime", {"prompt": "q", "response": LONG}, "response"),
    "gym": ("/gym/verify", {"response": {"output": [{"content": LONG}]}}, "response.output[0].content"),
    "llamafactory": ("/llamafactory/v1/score/evaluation", {"messages": [LONG]}, "messages[0]"),
    "infinity": ("/infinity/classify", {"input": [LONG]}, "input[0]"),
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_every_route_refuses_a_long_text_in_its_own_form_with_the_field_and_the_setting(
    strict: TestClient, case: str
) -> None:
    path, body, param = TOO_LONG[case]
    found = error_of(strict, path, body)
    assert found["status"] == 413
    assert "has 101 bytes and the limit is 100 (`limits.text_bytes`)" in found["told"]
    assert param in found["told"] or path == "/sglang/classify"


def test_a_large_body_is_read_and_validated_beside_the_loop_which_answers_meanwhile() -> None:
    async def work() -> None:
        gate, reading = threading.Event(), threading.Event()

        def held(*given: Any, **named: Any) -> Any:
            reading.set()
            gate.wait()
            return parse_json(*given, **named)

        async with running(CountingEngine()) as app:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(strict_route, "parse_json", held)
                caller = Caller(app, "/v1/score", {"items": [ITEM] * (strict_route.MANY + 1)})
                await wait_until(reading.is_set)
                assert (await Caller(app, "/health/live").done()).status == 200
                gate.set()
                assert (await caller.done()).status == 200

    asyncio.run(work())


def test_a_caller_who_leaves_while_a_large_body_is_read_ends_it_before_it_is_validated() -> None:
    async def work() -> None:
        gate, reading = threading.Event(), threading.Event()
        validated: list[Any] = []

        def held(body: bytes, **_: Any) -> Any:
            reading.set()
            gate.wait()
            return {}

        async with running(CountingEngine()) as app:
            (route,) = [each for each in app.routes if isinstance(each, APIRoute) and each.path == "/v1/score"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(strict_route, "parse_json", held)
                patch.setattr(route.body_field, "validate", lambda *_, **__: validated.append(True))
                caller = Caller(app, "/v1/score", {"items": [ITEM] * (strict_route.MANY + 1)})
                await wait_until(reading.is_set)
                caller.hang_up()
                await caller.done()
                gate.set()
        assert validated == []

    asyncio.run(work())


SCORED: dict[str, Any] = {
    "/classify": {"input": ["calm", "hi"]},
    "/score": {"queries": "q", "documents": ["calm"]},
    "/get_reward": {"query": ["calm"]},
    "/tei/predict": {"inputs": "calm"},
    "/sglang/v1/score": {"query": "q", "items": ["calm"]},
    "/slime": {"prompt": "q", "response": "calm"},
    "/gym/seed_session": {"resources_session_id": "s"},
    "/gym/aggregate_metrics": {"verify_responses": [{"reward": 1}]},
    "/llamafactory/v1/score/evaluation": {"model": "calm", "messages": ["calm"]},
    "/infinity/rerank": {"query": "q", "documents": ["calm", "hi"]},
}


@pytest.mark.parametrize("path", SCORED)
def test_a_body_that_is_validated_in_a_thread_gets_the_same_reply(client: TestClient, path: str) -> None:
    def ask(**more: str) -> Any:
        reply = client.post(path, json={**SCORED[path], **more})
        assert reply.status_code == 200, reply.text[:300]
        found = reply.json()
        return {name: found[name] for name in found if name not in ("id", "created")} if type(found) is dict else found

    assert ask(filling="x" * (strict_route.LARGE + 1)) == ask()


def test_a_large_chat_is_answered_as_a_small_one(client: TestClient) -> None:
    body = {"messages": [TURN], "preferences": {"calm": 1}, "seed": 1}
    large = client.post("/v1/chat/completions", json={**body, "metadata": {"a": "x" * (strict_route.LARGE + 1)}})
    small = client.post("/v1/chat/completions", json=body)
    assert large.json()["choices"] == small.json()["choices"]


@pytest.mark.parametrize("path", ["/v1/score", "/v1/preferences"])
def test_the_plan_and_the_reply_of_many_texts_are_made_in_a_thread_and_of_few_on_the_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    threads: list[int] = []

    async def noted(work: Any, *size: Any, **more: Any) -> Any:
        threads.append(1)
        return await run_pieces(work, *size, **more)

    monkeypatch.setattr(reward_plan, "run_pieces", noted)
    pair = {"prompt": "hi", "candidates": ["calm", "funny"]}
    few, many = [pair] * (reward_plan.MANY // 2), [pair] * (reward_plan.MANY // 2 + 1)
    for items, expected in ((few, 0), (many, 2)):
        reply = client.post(path, json={"items": items})
        assert (reply.status_code, len(reply.json()["data"]), len(threads)) == (200, len(items), expected)


def test_metrics_of_rollouts_are_computed_in_a_thread_which_ends_with_its_caller() -> None:
    rollouts = [
        gym.GymVerifiedRollout.model_validate({gym.TASK: task, "reward": 1.0, "length": 2}) for task in range(100)
    ]
    pieces: list[int] = []

    def go_on() -> None:
        pieces.append(1)
        if len(pieces) == 3:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        gym._aggregate(rollouts, go_on)
    assert len(pieces) == 3
