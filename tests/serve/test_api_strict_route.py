"""The strict reader: what a lenient one would pass in silence is refused, over HTTP, in our own words."""

import pytest
from serve.border import served

from tureen.errors import UnsupportedMedia
from tureen_serve.api.strict_route import LARGE, check_content_type

ITEM = b'{"items": [{"prompt": "hi", "candidates": ["calm"]}]'


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/x+json"])
def test_json_in_utf8_is_taken(content_type: str) -> None:
    check_content_type(content_type)


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("", "Content-Type: application/json"),
        ("text/plain", "Content-Type: application/json"),
        ("application/x-www-form-urlencoded", "Content-Type: application/json"),
        ("text/json+json", "Content-Type: application/json"),
        ("application/json; charset=utf-16", "utf-16"),
        ('application/json; charset="latin-1"', "latin-1"),
    ],
)
def test_other_media_are_refused(content_type: str, says: str) -> None:
    with pytest.raises(UnsupportedMedia, match=says):
        check_content_type(content_type)


def test_the_routes_read_strictly_and_answer_in_the_error_object() -> None:
    cases = [
        (ITEM + b', "rewards": NaN}', {}, 400, None),
        (ITEM + b', "items": []}', {}, 400, "items"),
        (ITEM + b', "preferences": {"calm": 1' + b"0" * 400 + b"}}", {}, 400, None),
        (ITEM + b"} x", {}, 400, None),
        (b"\xff", {}, 400, None),
        (b"", {}, 400, None),
        (ITEM + b"}", {"content-type": "text/plain"}, 415, None),
        (ITEM + b"}", {"content-encoding": "br"}, 415, None),
        (ITEM + b"}", {}, 200, None),
    ]
    with served() as client:
        for body, headers, status, param in cases:
            sent = {"content-type": "application/json", **headers}
            reply = client.post("/v1/score", content=body, headers=sent)
            assert reply.status_code == status, body
            if status != 200:
                assert reply.json()["error"]["param"] == param
                assert reply.json()["error"]["type"] == "invalid_request_error"
        assert client.post("/v1/score", content=ITEM + b"}", headers={"content-type": ""}).status_code == 415


def test_a_large_body_is_read_as_strictly_as_a_small_one() -> None:
    padding = b'"padding": "' + b"x" * LARGE + b'"'
    with served() as client:
        headers = {"content-type": "application/json"}
        unknown = client.post("/v1/score", content=ITEM + b", " + padding + b"}", headers=headers)
        assert unknown.json()["error"]["param"] == "padding"
        twice = client.post("/v1/score", content=ITEM + b", " + padding + b', "items": 1}', headers=headers)
        assert (twice.status_code, twice.json()["error"]["param"]) == (400, "items")


def test_the_bodies_are_documented() -> None:
    with served() as client:
        schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "items" in schema["components"]["schemas"][body["$ref"].rsplit("/", 1)[1]]["properties"]
