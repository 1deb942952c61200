"""The grammar that a request asks for, in every field that says one."""

import json
from typing import Any

import pytest

from tureen.errors import InvalidRequest
from tureen.wire import ChatRequest, CompletionRequest
from tureen_serve.generation.structure import read_grammar

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
LINE = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}}
ANYWHERE = {"x-guidance": {"whitespace_flexible": True}}
HI = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> Any:
    source = read_grammar(ChatRequest.model_validate({"messages": HI, **fields}))
    prompted = read_grammar(CompletionRequest.model_validate({"prompt": "hi", **fields}))
    assert source == prompted
    if source is None:
        return None
    return source.kind, json.loads(source.text) if source.kind in ("json", "choice") else source.text, source.param


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}, {"structured_outputs": None}])
def test_nothing_is_asked_for(fields: dict[str, Any]) -> None:
    assert read(**fields) is None


def test_openais_formats() -> None:
    assert read(response_format={"type": "json_object"}) == ("json", {"type": "object", **LINE}, "response_format")
    named = {"name": "x", "schema": SCHEMA, "strict": True, "description": "d"}
    found = read(response_format={"type": "json_schema", "json_schema": named})
    assert found == ("json", {**SCHEMA, **LINE}, "response_format.json_schema.schema")


@pytest.mark.parametrize(
    ("outputs", "kind", "value"),
    [
        ({"json": SCHEMA}, "json", {**SCHEMA, **LINE}),
        ({"json": json.dumps(SCHEMA), "regex": None, "json_object": False}, "json", {**SCHEMA, **LINE}),
        ({"json_object": True}, "json", {"type": "object", **LINE}),
        ({"json_object": True, "disable_any_whitespace": False}, "json", {"type": "object", **ANYWHERE}),
        ({"json": {**SCHEMA, **ANYWHERE}}, "json", {**SCHEMA, **ANYWHERE}),
        ({"json": {"x-guidance": {"lenient": True}}}, "json", {"x-guidance": {"lenient": True, **LINE["x-guidance"]}}),
        ({"json": {"x-guidance": 1}}, "json", {"x-guidance": 1}),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["a", "b"]}, "choice", ["a", "b"]),
        ({"grammar": 'start: "a"'}, "grammar", 'start: "a"'),
        (
            {"json": SCHEMA, "disable_any_whitespace": True},
            "json",
            {**SCHEMA, "x-guidance": {"whitespace_flexible": False}},
        ),
        ({"json": SCHEMA, "whitespace_pattern": " "}, "json", {**SCHEMA, "x-guidance": {"whitespace_pattern": " "}}),
    ],
)
def test_vllms_kinds(outputs: dict[str, Any], kind: str, value: Any) -> None:
    assert read(structured_outputs=outputs)[:2] == (kind, value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"disable_additional_properties": True, "json": {}}},
         "structured_outputs.disable_additional_properties"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": []}}, "structured_outputs.json"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": 1}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": " "}}, "structured_outputs.grammar"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param
