"""Requests as bytes and headers, without a network."""

import json

import pytest

from tureen import (
    Message,
    ScoreItem,
    Unprocessable,
    http_requests,
)
from tureen.http_requests import HttpRequest
from tureen.wire import ChatRequest, ScoreRequest

URL = "http://server"


def test_headers_carry_a_key_only_if_there_is_one() -> None:
    assert http_requests.build_headers("secret")["authorization"] == "Bearer secret"
    assert set(http_requests.build_headers(None)) == {"user-agent", "content-type"}


@pytest.mark.parametrize(("timeout", "told"), [(2.5, "2500"), (0.0001, "1"), (600.0, "600000")])
def test_the_server_is_told_how_long_it_has(timeout: float, told: str) -> None:
    assert HttpRequest("GET", "/", timeout=timeout).headers() == {"x-request-timeout-ms": told}


def test_a_body_holds_what_was_said_and_no_defaults() -> None:
    item = ScoreItem(messages=[Message(role="user", content="Hi")])
    body = http_requests.build_body(ScoreRequest, {"items": [item], "soup": False, "rewards": ("a", "b")})
    assert json.loads(body) == {
        "items": [{"messages": [{"role": "user", "content": "Hi"}]}],
        "soup": False,
        "rewards": ["a", "b"],
    }


def test_an_iterator_is_read_once_and_an_error_is_placed_in_it() -> None:
    messages = ({"role": role, "content": "Hi"} for role in ("user", "wizard"))
    with pytest.raises(Unprocessable) as caught:
        http_requests.check_fields(ChatRequest, {"messages": messages})
    assert caught.value.param == "messages[1].role"


def test_anything_can_be_encoded_but_what_json_has_no_form_for() -> None:
    item = ScoreItem(prompt="Why?", candidates=["a"])
    assert json.loads(http_requests.encode_json([item, "\ud800", {"x": 1}])) == [
        {"prompt": "Why?", "candidates": ["a"]},
        "\ud800",
        {"x": 1},
    ]
    with pytest.raises(Unprocessable, match="object is not JSON"):
        http_requests.encode_json([object()])
