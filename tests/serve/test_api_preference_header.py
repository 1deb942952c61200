"""Preferences in a header mean what they mean in the body."""

from typing import Any

import pytest
from serve.border import served

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES: dict[str, Any] = {CHAT: {"messages": [{"role": "user", "content": "hi"}]}, TEXT: {"prompt": "hi"}}


def post(path: str, mix: str, **body: Any) -> Any:
    with served() as client:
        return client.post(path, json={**BODIES[path], **body}, headers={"X-Tureen-Preferences": mix})


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("mix", ["calm=3+funny=1", "calm=0.75, funny=0.25"])
def test_a_header_steers(path: str, mix: str) -> None:
    reply = post(path, mix)
    assert reply.json()["preferences"] == {"calm": 0.75, "funny": 0.25}
    assert post(path, mix, model="words:calm=0.75+funny=0.25").status_code == 200


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("mix", "body", "param"),
    [
        ("calm", {}, "x-tureen-preferences"),
        ("calm=x", {}, "x-tureen-preferences"),
        ("calm=1+calm=1", {}, "x-tureen-preferences"),
        ("sad=1", {}, "preferences"),
        ("calm=1", {"preferences": {"calm": 1}}, "x-tureen-preferences"),
        ("calm=1", {"model": "words:funny=1"}, "model"),
        ("calm=1", {"preset": "playful"}, "preset"),
    ],
)
def test_a_header_that_cannot_be_or_that_contradicts_is_refused(path: str, mix: str, body: Any, param: str) -> None:
    reply = post(path, mix, **body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(param)
