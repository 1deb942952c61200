"""Which field a sentence of validation names."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tureen.validation import explain_errors, join_path
from tureen.wire import ChatRequest, CompletionRequest, ScoreRequest

ITEM = {"prompt": "Why?", "candidates": ["Because."]}


def test_steps_inside_a_candidate_are_shown_their_place() -> None:
    param, message = problem(ScoreRequest, {"items": [{"prompt": "Why?", "candidates": [{"steps": ["a", "b"]}]}]})
    assert param == "items[0].candidates"
    assert "give the steps of one answer as `items[].steps`, beside `prompt`" in message


def problem(kind: type[BaseModel], document: Any) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(document)
    error = explain_errors(caught.value.errors(), document)
    return error.param, error.message


@pytest.mark.parametrize(
    ("kind", "document", "param", "sentence"),
    [
        (ScoreRequest, {}, "items", "items: is required"),
        (ScoreRequest, {"items": [ITEM], "rewads": []}, "rewads", "rewads: is not a field of this request"),
        (ScoreRequest, {"items": [ITEM], "preferences": {"a.b": "x"}}, "preferences.a.b", "should be a valid number"),
        (ScoreRequest, {"items": [{"prompt": "Why?"}]}, "items[0]", "items[0]: give `messages`, or `prompt` with"),
        (
            ScoreRequest,
            {"items": [{**ITEM, "candidates": [[{"role": "user"}]]}]},
            "items[0].candidates[0][0].content",
            "",
        ),
        (
            ScoreRequest,
            {"items": [{**ITEM, "prompt": 3}]},
            "items[0].prompt",
            "a valid string, or should be a valid list",
        ),
        (
            ScoreRequest,
            {"items": [ITEM], "fingerprint": 3},
            "fingerprint",
            "valid string, or should be a valid dictionary",
        ),
        (
            ScoreRequest,
            {"items": [ITEM], "preferences": {"a": float("nan")}},
            "preferences.a",
            "must be a finite number",
        ),
        (ChatRequest, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "should be 'system'"),
        (ChatRequest, {"messages": []}, "messages", "at least 1 item"),
        (CompletionRequest, {"prompt": ["a", 3]}, "prompt[1]", "should be a valid string"),
        (CompletionRequest, {"prompt": "\udfff"}, "prompt", "holds a lone surrogate at character 0"),
        (
            CompletionRequest,
            {"prompt": "x", "preferences": [{"a": "x"}]},
            "preferences[0].a",
            "should be a valid number",
        ),
    ],
)
def test_the_field_is_named_as_the_caller_wrote_it(
    kind: type[BaseModel], document: Any, param: str, sentence: str
) -> None:
    got, message = problem(kind, document)
    assert got == param
    assert sentence in message


def test_a_document_that_is_no_object_has_no_field() -> None:
    param, message = problem(ScoreRequest, "text")
    assert param is None
    assert message.startswith("should be a valid dictionary")


def test_tuples_and_mappings_are_walked_like_lists_and_dicts() -> None:
    assert problem(ScoreRequest, {"items": (ITEM, {"prompt": 3, "candidates": ("a",)})})[0] == "items[1].prompt"


@pytest.mark.parametrize(("path", "text"), [((), None), (("a",), "a"), (("a", 1, "b"), "a[1].b"), ((2, "a"), "[2].a")])
def test_a_path_is_written_with_dots_and_brackets(path: tuple[int | str, ...], text: str | None) -> None:
    assert join_path(path) == text
