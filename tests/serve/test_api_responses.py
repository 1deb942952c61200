"""``/v1/responses`` with the openai SDK, unchanged: what it reads of a reply and of a stream, and what it raises."""

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import tiny
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from serve.border import listening, listening_app, served
from serve.counting import READING, CountingEngine, family

from tureen_core.template import Renderer
from tureen_serve.app import create_app
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.settings import load_settings

TOOL: Any = {"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": False}
CALL = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo"}}\n</tool_call>'
SPOKEN = f"<think>well</think>\nI look.\n{CALL}\n{CALL}"
TEXT_EVENTS = [
    *("created", "in_progress", "output_item.added", "content_part.added"),
    *["output_text.delta"] * 6,
    *("output_text.done", "content_part.done", "output_item.done", "completed"),
]
SOUP = {"preferences": {"calm": 1}, "seed": 1}


class SpeakingEngine(CountingEngine):
    """Writes a text with thoughts and calls, a few characters at a time; the template is one with tools.

    Attributes:
        read: each prompt as text.
    """

    def __init__(self) -> None:
        super().__init__()
        tokenizer = tiny.tokenizer()
        tokenizer.chat_template = tiny.TOOLS
        self.renderer = Renderer(tokenizer, READING)
        self.families = {"words": replace(family(), renderer=self.renderer, context=2000)}
        self.read: list[str] = []

    async def generate(self, *asked: Any) -> AsyncGenerator[TextDelta]:
        self.read.append(self.renderer.tokenizer.decode(asked[1]))
        for at in range(0, len(SPOKEN), 7):
            yield TextDelta(SPOKEN[at : at + 7], 1)
        yield TextDelta("", finish="stop")


def connect(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def client(engine: CountingEngine) -> Iterator[openai.OpenAI]:
    """The SDK before a server that writes words."""
    with listening(engine) as address, connect(address) as found:
        yield found


@pytest.fixture(scope="module")
def speaking() -> Iterator[tuple[openai.OpenAI, SpeakingEngine]]:
    """The SDK before a server that thinks and calls."""
    engine = SpeakingEngine()
    with listening(engine) as address, connect(address) as found:
        yield found, engine


def test_a_response_is_one_for_the_sdk_and_the_text_is_that_of_a_chat(client: openai.OpenAI) -> None:
    found = client.responses.create(model="words", input="hi", metadata={"a": "b"}, extra_body=SOUP)
    Response.model_validate(found.model_dump())
    chat = client.chat.completions.create(model="words", messages=[{"role": "user", "content": "hi"}], extra_body=SOUP)
    assert found.output_text == chat.choices[0].message.content
    assert (found.status, found.incomplete_details, found.error) == ("completed", None, None)
    assert (found.object, found.metadata, found.store) == ("response", {"a": "b"}, False)  # type: ignore[attr-defined]
    assert found.usage is not None
    assert chat.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (chat.usage.prompt_tokens, 6)
    assert found.usage.output_tokens_details.reasoning_tokens == 0
    told = found.model_dump()
    assert (told["preferences"], told["steering"], told["experts"]) == (
        {"calm": 1.0},
        chat.model_dump()["steering"],
        {"calm": "calm-7"},
    )


def test_preferences_come_in_the_models_name_and_in_a_header_too(client: openai.OpenAI) -> None:
    mixed = client.responses.create(model="words:calm=0.25+funny=0.75", input="hi")
    header = {"x-tureen-preferences": "calm=0.25+funny=0.75"}
    told = client.responses.create(model="words", input="hi", extra_headers=header)
    for each in (mixed, told):
        assert each.model_dump()["preferences"] == {"calm": 0.25, "funny": 0.75}


def test_fields_without_an_effect_are_told_by_their_names_here(client: openai.OpenAI) -> None:
    asked: Any = {"store": True, "text": {"verbosity": "low"}, "metadata": {"a": "b"}, "max_tool_calls": 3}
    for stream in (False, True):
        raw = client.responses.with_raw_response.create(model="words", input="hi", stream=stream, **asked)
        assert raw.headers["x-tureen-ignored"] == "max_tool_calls, store, text.verbosity"


def test_candidates_are_chosen_from(client: openai.OpenAI) -> None:
    found = client.responses.create(model="words", input="hi", extra_body={**SOUP, "candidates": {"n": 3}})
    assert found.model_dump()["rewards"]["calm"]["raw"] == 6
    assert len(found.output) == 1


def read_events(address: str, **body: Any) -> list[Any]:
    """The events of a stream, each with the name of its line, as the SDK's types take them."""
    reply = httpx2.post(f"{address}/v1/responses", json={"input": "hi", "stream": True, **body}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in reply.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        TypeAdapter(ResponseStreamEvent).validate_python(found[-1])
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    return found


def test_a_stream_has_openais_sequence_of_events(client: openai.OpenAI) -> None:
    found = read_events(str(client.base_url).removesuffix("/v1/"), **SOUP)
    assert [each["type"].removeprefix("response.") for each in found] == TEXT_EVENTS
    final = found[-1]["response"]
    assert {each["response"]["id"] for each in found if "response" in each} == {final["id"]}
    assert {each["item_id"] for each in found if "item_id" in each} == {final["output"][0]["id"]}
    assert "".join(each["delta"] for each in found if "delta" in each) == final["output"][0]["content"][0]["text"]
    assert found[0]["response"]["status"] == "in_progress"
    assert found[0]["response"]["output"] == []
    assert final["preferences"] == {"calm": 1.0}
    assert final["usage"]["output_tokens"] == 6


def test_the_sdks_stream_helper_ends_with_the_whole_response(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="words", input="hi", extra_body=SOUP)
    with client.responses.stream(model="words", input="hi", extra_body=SOUP) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_text == snapshots[-1] == whole.output_text
    assert final.usage == whole.usage
    assert final.status == "completed"


def test_a_text_at_its_limit_is_incomplete(client: openai.OpenAI) -> None:
    found = client.responses.create(model="words", input="hi", max_output_tokens=2)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.output[0].to_dict()["status"] == "incomplete"
    events = list(client.responses.create(model="words", input="hi", max_output_tokens=2, stream=True))
    assert events[-1].type == "response.incomplete"


def test_logprobs_stand_beside_their_text(client: openai.OpenAI) -> None:
    included: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole: Any = client.responses.create(model="words", input="hi", **included).output[0]
    assert [each.logprob for each in whole.content[0].logprobs] == [-0.5] * 6
    assert {each.top_logprobs[0].token for each in whole.content[0].logprobs} == {"other"}
    events = read_events(str(client.base_url).removesuffix("/v1/"), **included)
    deltas = [each for each in events if each["type"] == "response.output_text.delta"]
    assert [len(each["logprobs"]) for each in deltas] == [1] * 6
    assert len(events[-1]["response"]["output"][0]["content"][0]["logprobs"]) == 6


# --------------------------------------------------------------------------- thoughts and calls


def test_thoughts_text_and_calls_are_items(speaking: tuple[openai.OpenAI, SpeakingEngine]) -> None:
    client, _ = speaking
    found = client.responses.create(model="words", input="weather?", tools=[TOOL])
    Response.model_validate(found.model_dump())
    assert [each.type for each in found.output] == ["reasoning", "message", "function_call", "function_call"]
    thought, message, *calls = (each.to_dict() for each in found.output)
    assert thought["content"] == [{"type": "reasoning_text", "text": "well"}]
    assert (message["content"][0]["text"], found.output_text) == ("I look.", "I look.")  # type: ignore[index]
    assert [(call["name"], call["arguments"]) for call in calls] == [("get", '{"city": "Oslo"}')] * 2
    assert len({call["call_id"] for call in calls}) == 2
    assert found.usage is not None
    assert 0 < found.usage.output_tokens_details.reasoning_tokens < found.usage.output_tokens
    assert found.tools[0].to_dict() == TOOL


def test_a_stream_of_them_is_the_same_and_the_helper_parses_the_calls(
    speaking: tuple[openai.OpenAI, SpeakingEngine],
) -> None:
    client, _ = speaking
    events = read_events(str(client.base_url).removesuffix("/v1/"), tools=[TOOL])
    opened = [each["item"]["type"] for each in events if each["type"] == "response.output_item.added"]
    assert opened == ["reasoning", "message", "function_call", "function_call"]
    done = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    indices = [each["output_index"] for each in events if "output_index" in each]
    assert indices == sorted(indices)
    with client.responses.stream(model="words", input="weather?", tools=[TOOL]) as stream:
        final = stream.get_final_response()
    assert final.output_text == "I look."
    assert [each.to_dict()["arguments"] for each in final.output[2:]] == ['{"city": "Oslo"}'] * 2


def test_the_output_goes_back_as_input(speaking: tuple[openai.OpenAI, SpeakingEngine]) -> None:
    client, engine = speaking
    first = client.responses.create(model="words", instructions="be brief", input="weather?", tools=[TOOL])
    items: list[Any] = [{"role": "user", "content": "weather?"}, *(each.to_dict() for each in first.output)]
    for call in first.output[2:]:
        items.append({"type": "function_call_output", "call_id": call.to_dict()["call_id"], "output": "sun"})
    client.responses.create(model="words", instructions="be brief", input=items, tools=[TOOL])
    read = engine.read[-1]
    for part in ("be brief", "weather?", "<think>well</think>I look.", '"city": "Oslo"', "<tool_response>\nsun"):
        assert part in read, (part, read)
    assert read.index("be brief") < read.index("weather?") < read.index("I look.") < read.index("sun")


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "raised", "param"),
    [
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "previous_response_id"),
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"model": "calm"}, openai.NotFoundError, "model"),
        ({"extra_body": {"preferences": {"sad": 1}}}, openai.BadRequestError, "preferences.sad"),
        ({"input": "x " * 500}, openai.BadRequestError, "input"),
        ({"max_output_tokens": 5000}, openai.BadRequestError, "max_output_tokens"),
        ({"tools": [TOOL]}, openai.BadRequestError, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, openai.BadRequestError, "text.format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_sdks_own_error_and_names_the_field(
    client: openai.OpenAI, body: dict[str, Any], raised: type[openai.APIStatusError], param: str, stream: bool
) -> None:
    with pytest.raises(raised) as caught:
        client.responses.create(**{"model": "words", "input": "hi", "stream": stream, **body})
    found: Any = caught.value.body
    assert (found["param"] or "").startswith(param), found


def collect(stream: Any, seen: list[Any]) -> None:
    for event in stream:
        seen.append(event)


def collect_events(stream: Any, seen: list[Any]) -> None:
    for event in stream:
        seen.append(event)


def test_a_text_that_breaks_off_is_a_failed_response_and_an_error(
    client: openai.OpenAI, engine: CountingEngine
) -> None:
    engine.breaks_after = 3
    seen: list[Any] = []
    try:
        stream = client.responses.create(model="words", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="went away"):
            collect_events(stream, seen)
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="words", input="hi")
        engine.breaks_after = 0
        with pytest.raises(openai.InternalServerError) as caught:
            client.responses.create(model="words", input="hi", stream=True)
    finally:
        engine.breaks_after = None
    assert caught.value.status_code == 503
    assert seen[-1].type == "response.failed"
    assert seen[-1].response.status == "failed"
    assert seen[-1].response.error is not None
    assert "went away" in seen[-1].response.error.message


def test_what_is_not_served_says_where_to_ask() -> None:
    with served() as client:
        for method, path in (("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1")):
            reply = client.request(method, path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_stored")
        reply = client.post("/v1/embeddings", json={"input": "hi"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_route")
    assert "/sglang/v1/embeddings" in reply.json()["error"]["message"]


# --------------------------------------------------------------------------- grammars of a real model


class Weather(BaseModel):
    """What the model must say."""

    sunny: bool


def test_a_schema_and_a_forced_call_bind_a_real_model(tmp_path: Path) -> None:
    base = tiny.base_with_tools(tmp_path / "base")
    tiny.expert(tmp_path / "calm", base, "calm", 10)
    (tmp_path / "server.yaml").write_text("families: [{name: tiny, experts: [calm]}]\ndtype: float32\ndevice: cpu\n")
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    tool: Any = {**TOOL, "parameters": {**schema, "additionalProperties": False}}
    app = create_app(load_settings(tmp_path / "server.yaml"))
    with listening_app(app) as address, connect(address) as client:
        parsed = client.responses.parse(model="tiny", input="weather?", text_format=Weather, temperature=0)
        assert isinstance(parsed.output_parsed, Weather)
        choices: list[Any] = ["required", {"type": "function", "name": "get"}]
        for choice in choices:
            called = client.responses.create(
                model="tiny:calm=1", input="weather?", tools=[tool], tool_choice=choice, parallel_tool_calls=False
            )
            (item,) = called.output
            assert item.type == "function_call"
            assert json.loads(item.arguments).keys() == {"sunny"}
