"""The routes without their connections: what a batch's line gets is what the route would have answered."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from serve.border import served
from serve.counting import CountingEngine

from tureen.errors import ServerFault, Unavailable, Unprocessable
from tureen.wire import ENDPOINTS
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batches.endpoints import LineAnswer
from tureen_serve.telemetry import Metrics


def score(*answers: str, **more: Any) -> dict[str, Any]:
    return {"items": [{"prompt": "hi", "candidates": list(answers)}], **more}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "words", "messages": [{"role": "user", "content": "hi"}], "seed": 1, **more}


def response(**more: Any) -> dict[str, Any]:
    return {"model": "words", "input": "hi", "seed": 1, **more}


def answers(endpoint: str, *bodies: Any, engine: CountingEngine | None = None, at_once: int = 8) -> list[LineAnswer]:
    journey = BATCH_ENDPOINTS[endpoint]
    parsed = [journey.body.model_validate(body) for body in bodies]
    return asyncio.run(journey.run(engine or CountingEngine(), Metrics(), parsed, at_once))


def told(body: Any) -> Any:
    """A reply without what is its own, and the items of a response without that too."""
    own = ("id", "created", "created_at", "completed_at", "request_id")
    found = {name: value for name, value in body.items() if name not in own}
    return {**found, "output": [told(item) for item in body["output"]]} if body.get("output") else found


def test_every_endpoint_of_the_wire_has_its_journey() -> None:
    assert tuple(BATCH_ENDPOINTS) == ENDPOINTS


BODIES: Sequence[tuple[str, Any]] = [
    ("/v1/score", score("calm calm", "funny")),
    ("/v1/score", score("calm", rewards=["funny"], preferences={"calm": 0.5, "funny": 0.5})),
    ("/v1/score", score("calm", preferences={"calm": 1}, soup=True)),
    ("/v1/score", score("calm", "", on_error="item")),
    ("/v1/score", score("calm", rewards=["bold"])),
    ("/v1/score", score("calm", "boundless")),
    ("/v1/score", score("calm " * 300)),
    ("/v1/score", score("calm " * 300, truncate=True)),
    ("/v1/score", score("calm", fingerprint="another")),
    ("/v1/preferences", score("calm", "funny", format="trl")),
    ("/v1/preferences", score("calm", "funny", matrix=True)),
    ("/v1/preferences", score("calm")),
    ("/v1/chat/completions", chat(preferences={"calm": 0.5, "funny": 0.5}, logprobs=True)),
    ("/v1/chat/completions", chat(preferences={"bold": 1})),
    ("/v1/chat/completions", chat(model="nobody")),
    ("/v1/chat/completions", chat(candidates={"n": 4, "preferences": {"funny": 1}}, preset="even")),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3, "seed": 2}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 500}),
    ("/v1/responses", response(preferences={"calm": 0.5, "funny": 0.5}, store=False)),
    ("/v1/responses", response(candidates={"n": 4, "preferences": {"funny": 1}}, preset="even")),
    ("/v1/responses", response(model="nobody")),
    ("/v1/responses", response(text={"format": {"type": "json_schema", "name": "a"}})),
    ("/v1/responses", response(input="a " * 500)),
]


@pytest.mark.parametrize(("endpoint", "body"), BODIES)
def test_a_line_gets_what_the_route_answers(endpoint: str, body: Any) -> None:
    (answer,) = answers(endpoint, body)
    with served() as client:
        reply = client.post(endpoint, json=body)
    assert (answer.status, told(answer.body)) == (reply.status_code, told(reply.json()))


def test_a_line_that_does_not_run_has_the_status_of_its_route() -> None:
    statuses = {name: endpoint.refuse(Unprocessable("no")).status for name, endpoint in BATCH_ENDPOINTS.items()}
    assert statuses == {
        "/v1/score": 422,
        "/v1/preferences": 422,
        "/v1/chat/completions": 400,
        "/v1/completions": 400,
        "/v1/responses": 400,
    }


def test_lines_that_ask_for_the_same_are_one_call() -> None:
    engine = CountingEngine()
    bodies = [score("calm", "funny"), score("calm calm"), score("funny", priority="interactive")]
    found = answers("/v1/score", *bodies, engine=engine)
    ((groups, objectives),) = engine.calls
    assert (len(groups), objectives) == (3, ["calm", "funny"])
    assert [len(each.body["data"][0]["candidates"]) for each in found] == [2, 1, 1]
    assert [each.body["data"][0]["index"] for each in found] == [0, 0, 0]
    assert found[1].body["data"][0]["candidates"][0]["scores"]["calm"]["raw"] == 2


def test_lines_that_ask_for_others_follow_in_their_order() -> None:
    engine = CountingEngine()
    bodies = [score("a", rewards=["funny"]), score("b"), score("c", rewards=["funny"]), score("d", truncate=True)]
    answers("/v1/score", *bodies, engine=engine)
    assert [(len(groups), objectives) for groups, objectives in engine.calls] == [
        (2, ["funny"]),
        (1, ["calm", "funny"]),
        (1, ["calm", "funny"]),
    ]


def test_a_line_that_cannot_be_spoils_no_other() -> None:
    bodies = [score("calm"), score("calm", rewards=["bold"]), score("boundless"), score("calm calm")]
    found = answers("/v1/score", *bodies)
    assert [each.status for each in found] == [200, 422, 500, 200]
    assert found[1].body["error"]["param"] == "rewards[0]"
    assert found[2].body["error"]["code"] == "non_finite_score"
    assert found[3].body["data"][0]["candidates"][0]["scores"]["calm"]["raw"] == 2


def test_whatever_a_line_says_it_waits_for_all_others() -> None:
    class Noting(CountingEngine):
        seen: list[str] = []

        async def score(self, *arguments: Any, priority: Any = "default", **more: Any) -> Any:
            self.seen.append(priority)
            return await super().score(*arguments, priority=priority, **more)

    engine = Noting()
    answers("/v1/score", score("calm", priority="interactive"), engine=engine)
    answers("/v1/preferences", score("calm", "funny"), engine=engine)
    judged = {"candidates": {"n": 2, "preferences": {"calm": 1}}, "priority": "interactive"}
    answers("/v1/chat/completions", chat(**judged), engine=engine)
    answers("/v1/responses", response(**judged), engine=engine)
    assert engine.seen == ["batch"] * 4


def test_an_engine_that_is_down_is_transient() -> None:
    engine = CountingEngine()
    engine.broken = Unavailable("it went away", code="engine_dead")
    for endpoint, body in (("/v1/score", score("calm")), ("/v1/chat/completions", chat())):
        found = answers(endpoint, body, body, engine=engine)
        assert [each.transient for each in found] == [True, True]
        assert not any(each.faulty for each in found)


def test_an_engine_that_breaks_on_one_line_is_asked_for_the_others_alone() -> None:
    class Fragile(CountingEngine):
        async def score(self, groups: Any, *arguments: Any, **more: Any) -> Any:
            if any("funny" in answer[-1]["content"] for group in groups for answer in group.answers):
                raise ZeroDivisionError
            return await super().score(groups, *arguments, **more)

    found = answers("/v1/score", score("calm"), score("funny"), score("calm"), engine=Fragile())
    assert [each.status for each in found] == [200, 500, 200]
    assert (found[1].faulty, found[1].transient) == (True, False)
    assert "ZeroDivision" not in str(found[1].body)


def test_no_more_texts_are_written_at_once_than_allowed() -> None:
    class Watched(CountingEngine):
        most = 0
        trio = asyncio.Barrier(3)

        async def generate(self, *arguments: Any, **more: Any) -> Any:
            await self.trio.wait()  # three must be let in at once, and 12 texts make four times three
            async for delta in super().generate(*arguments, **more):
                self.most = max(self.most, self.running)
                yield delta

    engine = Watched()
    found = answers("/v1/chat/completions", *[chat(seed=seed) for seed in range(12)], engine=engine, at_once=3)
    assert [each.status for each in found] == [200] * 12
    assert engine.most == 3


def test_a_text_that_found_no_room_is_written_alone() -> None:
    class Crowded(CountingEngine):
        async def generate(self, *arguments: Any, **more: Any) -> Any:
            if self.running >= 2:
                raise Unavailable("it is full")
            async for delta in super().generate(*arguments, **more):
                yield delta

    found = answers("/v1/chat/completions", *[chat(seed=seed) for seed in range(6)], engine=Crowded(), at_once=6)
    assert [each.status for each in found] == [200] * 6


def test_a_text_that_breaks_off_is_its_lines_error() -> None:
    class Broken(CountingEngine):
        async def generate(self, *arguments: Any, **more: Any) -> Any:
            async for delta in super().generate(*arguments, **more):
                yield delta
            raise ServerFault("it broke at the end")

    (answer,) = answers("/v1/completions", {"prompt": "a"}, engine=Broken())
    assert (answer.status, answer.body["error"]["message"]) == (500, "it broke at the end")
