"""The one mapping: each error's status and words, and that nothing unexpected leaks."""

import asyncio
import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from serve.border import Caller, served
from serve.counting import CountingEngine
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from tureen.errors import (
    BY_STATUS,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    ServerFault,
    TureenError,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from tureen.validation import explain_errors, join_path
from tureen.wire import ChatRequest, ScoreRequest
from tureen_serve.app import OPENAI_ERRORS
from tureen_serve.dialects import ERROR_BUILDERS
from tureen_serve.faults import HANDLERS, Faults, build_error_body, build_error_reply, document_errors, translate_error
from tureen_serve.log_lines import REQUEST_ID

SECRET = "sk-a-secret-in-a-message"


def score_error(document: Any, kind: Any = ScoreRequest) -> TureenError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(document)
    return explain_errors(caught.value.errors(), document)


def item(**fields: Any) -> dict[str, Any]:
    return {"items": [{"prompt": "p", "candidates": ["a"]}, fields]}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize(
    ("document", "param", "says"),
    [
        ({}, "items", "is required"),
        ({"items": []}, "items", "at least 1 item"),
        ({"items": "a"}, "items", "should be a valid list"),
        (item(prompt="p", candidates=[]), "items[1].candidates", "at least 1 item"),
        (item(prompt="p", candidates=["a", 5]), "items[1].candidates[1]", "valid string, or should be a valid list"),
        (item(prompt="p", candidates=["a", [{"role": "user"}]]), "items[1].candidates[1][0].content", "is required"),
        (item(prompt="p", candidates=[[{"role": "robot", "content": ""}]]), "items[1].candidates[0][0].role", "'user'"),
        (item(prompt="p", candidates=["\ud800"]), "items[1].candidates[0]", "lone surrogate at character 0"),
        (item(prompt=[{"role": "user", "content": "a\udfff"}], candidates=["a"]), "items[1].prompt[0].content", "lone"),
        (item(prompt="p"), "items[1]", "give `messages`, or `prompt`"),
        (item(messages=[{"role": "user", "content": "a"}], prompt="p"), "items[1]", "`messages` cannot be combined"),
        (item(prompt="p", candidates=["a"], answer="b"), "items[1].answer", "not a field"),
        ({**item(prompt="p", candidates=["a"]), "reward": ["x"]}, "reward", "not a field"),
        ({**item(prompt="p", candidates=["a"]), "preferences": {"x": "much"}}, "preferences.x", "valid number"),
        ({**item(prompt="p", candidates=["a"]), "on_error": "skip"}, "on_error", "'fail' or 'item'"),
        ([], None, "valid dictionary"),
        ("text", None, "valid dictionary"),
    ],
)
def test_a_body_that_does_not_fit_is_told_by_its_field(document: Any, param: str | None, says: str) -> None:
    error = score_error(document)
    assert isinstance(error, Unprocessable)
    assert error.param == param
    assert says in error.message
    assert "Input" not in error.message
    assert "Value error" not in error.message


@pytest.mark.parametrize(
    ("document", "param", "says"),
    [
        (chat(preferences={"a": []}), "preferences.a", "valid number"),
        (chat(preferences=[{"a": 1}, {"a": "x"}]), "preferences[1].a", "valid number"),
        (chat(preferences=5), "preferences", "valid dictionary, or should be a valid list"),
        (chat(preferences=[]), "preferences", "at least 1 item"),
        (chat(stop=[1]), "stop[0]", "valid string"),
        (chat(stop=["a"] * 65), "stop", "at most 64 items"),
        (chat(temperature=9), "temperature", "less than or equal to 2"),
        (chat(top_logprobs=2), None, "`top_logprobs` needs `logprobs: true`"),
        (chat(candidates={"n": 0}), "candidates.n", "greater than 0"),
        (chat(soup={"semantics": "sum"}), "soup.semantics", "'delta' or 'factor'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            "only text is read",
        ),
    ],
)
def test_unions_and_nested_fields_of_a_chat_too(document: Any, param: str | None, says: str) -> None:
    error = score_error(document, ChatRequest)
    assert error.param == param
    assert says in error.message


def test_the_first_of_several_mistakes_is_told() -> None:
    error = score_error({"items": [{"prompt": 5}, {"nope": 1}], "also": "nope"})
    assert error.param == "items[0].prompt"


def test_the_framework_puts_body_before_a_location() -> None:
    document = {"items": [{"prompt": "p", "candidates": [5]}]}
    with pytest.raises(ValidationError) as caught:
        ScoreRequest.model_validate(document)
    located = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    error = translate_error(RequestValidationError(located, body=document))
    assert error.param == "items[0].candidates[0]"


def test_paths_are_written_as_one_would_in_code() -> None:
    assert join_path(["items", 3, "candidates", 1]) == "items[3].candidates[1]"
    assert join_path([]) is None


@pytest.mark.parametrize("kind", BY_STATUS.values())
def test_every_error_of_ours_keeps_its_status_words_and_field(kind: type[TureenError]) -> None:
    reply = build_error_reply(translate_error(kind("what is wrong", param="a.b")))
    assert reply.status_code == kind.status
    told = json.loads(bytes(reply.body))
    assert told["error"] == {"message": "what is wrong", "type": kind.type, "param": "a.b", "code": kind.code}


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (2.1, "3"), (500, "60"), (None, "1")])
def test_saturation_says_when_to_come_back_in_whole_seconds(seconds: float | None, header: str) -> None:
    assert build_error_reply(Unavailable("full", retry_after=seconds)).headers["retry-after"] == header


def test_others_do_not_say_so() -> None:
    assert "retry-after" not in build_error_reply(Conflict("other")).headers
    assert "retry-after" not in build_error_reply(DeadlineExceeded("late")).headers
    assert build_error_reply(Unauthorized("who")).headers["www-authenticate"] == "Bearer"


def test_the_request_id_stands_in_the_body() -> None:
    token = REQUEST_ID.set("req_7")
    assert build_error_body(NotFound("gone"))["request_id"] == "req_7"
    REQUEST_ID.reset(token)


def test_a_field_that_is_no_unicode_can_be_named() -> None:
    reply = build_error_reply(Unprocessable("the field \ud800", param="\ud800"))
    assert json.loads(bytes(reply.body))["error"]["param"] == "\\ud800"


def test_the_frameworks_own_errors_become_ours() -> None:
    assert translate_error(HTTPException(404)).code == "unknown_route"
    assert translate_error(HTTPException(405)).status == 405
    assert type(translate_error(HTTPException(403, "no"))) is Forbidden


def test_an_unexpected_error_is_logged_and_does_not_leak(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = translate_error(ZeroDivisionError(SECRET))
    assert type(error) is ServerFault
    assert SECRET not in error.message
    assert "ZeroDivisionError" in caplog.text


def test_unknown_routes_and_methods_over_http() -> None:
    with served() as client:
        missing, wrong = client.get("/nope"), client.get("/v1/score")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_route")
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (405, "this route takes POST")


def test_a_broken_engine_is_a_500_that_tells_only_the_id() -> None:
    engine = CountingEngine()
    engine.broken = RuntimeError(SECRET)
    with served(engine) as client:
        score = client.post("/v1/score", json=item(prompt="p", candidates=["a"]))
        text = client.post("/v1/chat/completions", json=chat())
    for reply in (score, text):
        assert reply.status_code == 500
        assert SECRET not in reply.text
        assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_an_error_after_the_answer_began_is_left_to_the_server() -> None:
    async def halfway(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Unavailable("gone")

    async def call() -> None:
        caller = Caller(Faults(halfway), "/")
        with pytest.raises(Unavailable):
            await caller.done()
        assert [message["type"] for message in caller.messages] == ["http.response.start"]

    asyncio.run(call())


def test_the_handlers_leave_every_error_to_the_layer() -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(Faults)

    @app.get("/typed/{number}")
    async def typed(number: int) -> int:
        return number

    client = TestClient(app)
    assert client.get("/typed/3").json() == 3
    assert client.get("/typed/x").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/other").json()["error"]["code"] == "unknown_route"


def test_documentation_names_the_statuses_that_every_route_has() -> None:
    told = document_errors(422)
    assert set(told) == {400, 401, 403, 413, 422, 429, 431, 500, 503, 504}
    assert told[422]["description"] == "the value of a field is invalid."


class Other(BaseModel):
    """A body of another server."""


def test_documentation_tells_a_dialects_own_statuses_and_bodies() -> None:
    told = document_errors(400, 415, 422, model=Other, moved={415: 400, 422: 400, 500: 424})
    assert set(told) == {400, 401, 403, 413, 424, 429, 431, 503, 504, "4XX"}
    assert {status for status, each in told.items() if each["model"] is not Other} == {431}


def test_every_route_documents_what_it_may_answer() -> None:
    with served() as client:
        paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            statuses = set(operation["responses"])
            if path in ERROR_BUILDERS:
                assert statuses >= {"200", "401", "403", "431"}, path
                assert "HTTPValidationError" not in json.dumps(operation), path
                continue
            merged = {"415", "422"}  # into 400, on OpenAI's routes
            if path in OPENAI_ERRORS:
                assert not statuses & merged, path
            if method == "post":
                own = set() if path in OPENAI_ERRORS else merged
                assert statuses >= {"200", "400", "401", "403", "413", "500", "503", "504"} | own, path
            elif path not in ("/health/live", "/health/ready"):
                assert "401" in statuses, path
            for status, reply in operation["responses"].items():
                if status != "200":
                    assert reply["content"]["application/json"]["schema"]["$ref"].endswith("ErrorReply"), (path, status)
