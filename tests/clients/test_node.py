"""Clients of Node before a real server: the openai SDK and the AI SDK.

They run in a folder of their own, which `make test-clients` fills. Without it or Node these tests are skipped.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from clients.programs import ENVIRONMENTS, SPENT, ask, must_run, run_program
from serve.processes import Process

FOLDER = ENVIRONMENTS / "node"
SCRIPTS = Path(__file__).parent / "node"
MIX = "tiny:calm=0.7+dry=0.3"
PROMPT = "why do leaves fall?"
CITIES = ("Oslo", "Rome")
CHATS = "/v1/chat/completions"
ENDED = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("npm"), reason="NOT TESTED: the clients of Node, because npm is not there"),
    pytest.mark.skipif(not must_run("node"), reason="`make test-clients` installs the clients of Node and runs this"),
]


def run(server: Process, name: str) -> tuple[Any, Any]:
    return run_program(
        server, ["node", "--input-type=module", "-"], SCRIPTS / name, FOLDER, MODEL=MIX, SPENT=SPENT["node"][0]
    )


def write(server: Process, tokens: int) -> Any:
    """The chat that the scripts ask for, without a client."""
    asked = {"model": MIX, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": tokens}
    return ask(server, CHATS, asked)


@pytest.fixture(scope="module")
def sdk(server: Process) -> tuple[Any, Any]:
    """What the openai SDK read, and the replies that it got."""
    return run(server, "openai.mjs")


def test_each_request_of_the_openai_sdk_is_answered_as_it_should_be(sdk: tuple[Any, Any]) -> None:
    _, replies = sdk
    assert replies == {
        ("/v1/models", 200): 1,
        ("/v1/models", 401): 1,
        ("/v1/models/{name}", 200): 1,
        (CHATS, 200): 9,
        (CHATS, 400): 3,
        (CHATS, 404): 1,
        (CHATS, 429): 1,
        ("/v1/completions", 200): 1,
        ("/v1/responses", 200): 4,
        ("/v1/responses", 400): 1,
        ("/v1/embeddings", 404): 1,
    }


def test_the_openai_sdk_reads_texts_and_streams(server: Process, sdk: tuple[Any, Any]) -> None:
    found, _ = sdk
    assert {"tiny", "tiny:still"} <= set(found["models"])
    assert found["mix"] == MIX
    short, long = write(server, 8), write(server, 16)
    text, usage = short["choices"][0]["message"]["content"], short["usage"]
    assert found["chat"]["choices"][0]["message"]["content"] == found["streamed"] == text
    *pieces, last = found["chunks"]
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in pieces) == text
    assert [each["choices"][0]["finish_reason"] for each in pieces if each["choices"][0]["finish_reason"]] == ["length"]
    assert (last["choices"], last["usage"], found["chat"]["usage"]) == ([], usage, usage)
    assert found["chat"]["preferences"] == pieces[0]["preferences"] == {"calm": 0.7, "dry": 0.3}
    assert [each["index"] for each in found["completion"]["choices"]] == [0, 1]
    assert all(len(each["logprobs"]["tokens"]) == 4 for each in found["completion"]["choices"])

    told = found["response"]
    assert (told["text"], told["status"]) == (long["choices"][0]["message"]["content"], "incomplete")
    assert told["usage"]["output_tokens"] == 16
    kinds = [each["type"].removeprefix("response.") for each in found["events"]]
    assert kinds[0] == "created"
    assert kinds[-4:] == ENDED
    assert "".join(each.get("delta") or "" for each in found["events"]) == told["text"]


def test_the_openai_sdk_reads_structures_and_runs_tools(sdk: tuple[Any, Any]) -> None:
    found, _ = sdk
    assert found["parsed"]["city"] in CITIES
    assert found["shaped"]["city"] in CITIES
    (said,) = found["called"]["message"]["tool_calls"]
    assert found["called"]["finish_reason"] == "tool_calls"
    (function,) = found["functions"]
    for call in (said["function"], found["streamedCall"], function):
        assert call["name"] == "weather"
        assert json.loads(call["arguments"])["city"] in CITIES
    assert found["told"]["choices"][0]["finish_reason"] == "length"
    assert found["ran"]
    assert all(each["city"] in CITIES for each in found["ran"])


def test_the_openai_sdk_raises_its_own_class_for_each_error(sdk: tuple[Any, Any]) -> None:
    found, _ = sdk
    faults = {name: (each["class"], each.get("code")) for name, each in found["faults"].items()}
    assert faults == {
        "value": ("BadRequestError", "invalid_value"),
        "streamed": ("BadRequestError", "invalid_value"),
        "missing": ("NotFoundError", "model_not_found"),
        "long": ("BadRequestError", "context_length_exceeded"),
        "key": ("AuthenticationError", "invalid_api_key"),
        "busy": ("RateLimitError", "requests_quota_exceeded"),
        "stored": ("BadRequestError", "unsupported_parameter"),
        "embeddings": ("NotFoundError", "unknown_route"),
    }


def test_the_ai_sdk_reads_chats_and_responses(server: Process) -> None:
    found, replies = run(server, "ai.mjs")
    assert replies == {(CHATS, 200): 5, (CHATS, 400): 1, ("/v1/responses", 200): 5, ("/v1/responses", 400): 1}
    chat = write(server, 16)
    usage = [chat["usage"]["prompt_tokens"], chat["usage"]["completion_tokens"]]
    for told in found.values():
        assert told["text"] == told["streamed"] == chat["choices"][0]["message"]["content"]
        assert told["finish"] == told["streamedFinish"] == "length"
        assert told["usage"] == told["streamedUsage"] == usage
        assert {told["object"]["city"], told["streamedObject"]["city"]} <= set(CITIES)
        assert told["calls"]
        assert told["results"] == [f"rain in {given['city']}" for _, given in told["calls"]]
        assert {name for name, _ in told["calls"]} == {"weather"}
        assert told["errors"] == []
        fault = told["fault"]
        assert (fault["name"], fault["status"], fault["retry"]) == ("AI_APICallError", 400, False)
        assert "maximum context length is" in fault["message"]
