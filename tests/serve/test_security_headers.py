"""Headers of every reply: answers, errors, streams, and what the HTTP parser refuses."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import Response
from serve.border import application, listening, served, wait_for_models
from serve.counting import CountingEngine
from serve.keys import KEY, bear, write_lines
from starlette.testclient import TestClient

from tureen_serve.settings import SettingsError, load_settings

EXPECTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
CHAT = {"model": "words", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
PAGE = "https://app.example.org"


def test_every_reply_has_them(tmp_path: Path) -> None:
    with served(keys=write_lines(tmp_path, KEY)) as client:
        replies = [
            client.get("/health/live"),
            client.get("/v1/models"),
            client.get("/openapi.json", headers=bear(KEY)),
            client.get("/nope", headers=bear(KEY)),
            client.post("/tei/predict", headers=bear(KEY)),
            client.post("/v1/chat/completions", json=CHAT, headers=bear(KEY)),
            client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=bear(KEY)),
        ]
    assert [reply.status_code for reply in replies] == [200, 401, 200, 404, 415, 200, 200]
    for reply in replies:
        assert {name: reply.headers.get_list(name) for name in EXPECTED} == {
            name: [value] for name, value in EXPECTED.items()
        }


def test_what_the_parser_refuses_has_them_too() -> None:
    with listening(CountingEngine()) as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(b"what is this\r\n\r\n")
            said = connection.recv(4096).decode().lower()
    assert said.startswith("http/1.1 400")
    assert all(f"{name}: {value.lower()}\r\n" in said for name, value in EXPECTED.items())


def test_a_page_may_have_a_policy_of_its_own() -> None:
    app = application(CountingEngine())
    own = {"content-security-policy": "default-src 'self'"}
    app.router.routes[0].endpoint = None  # type: ignore[attr-defined]

    async def page(scope: object, receive: object, send: object) -> None:
        await Response("<p>", media_type="text/html", headers=own)(scope, receive, send)  # type: ignore[arg-type]

    app.router.routes[0].app = page  # type: ignore[attr-defined]
    with TestClient(app) as client:
        wait_for_models(app)
        assert client.get("/openapi.json").headers.get_list("content-security-policy") == ["default-src 'self'"]


@pytest.mark.parametrize("origins", [[], ["https://other.example.org"]])
def test_other_pages_may_not_read_replies(tmp_path: Path, origins: list[str]) -> None:
    with served(keys=write_lines(tmp_path, KEY), access={"cors_origins": origins}) as client:
        reply = client.get("/v1/models", headers={**bear(KEY), "origin": PAGE})
        asked = client.options("/v1/score", headers={"origin": PAGE, "access-control-request-method": "POST"})
    assert reply.status_code == 200
    assert asked.status_code in (400, 401)
    assert not [name for each in (reply, asked) for name in each.headers if name == "access-control-allow-origin"]


def test_a_named_page_may_ask_and_read_also_errors(tmp_path: Path) -> None:
    with served(keys=write_lines(tmp_path, KEY), access={"cors_origins": [PAGE]}) as client:
        wanted = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-stainless-os",
        }
        asked = client.options("/v1/score", headers={"origin": PAGE, **wanted})
        assert asked.status_code == 200
        assert "authorization" in asked.headers["access-control-allow-headers"]
        for headers, status in ((bear(KEY), 200), ({}, 401)):
            reply = client.get("/v1/models", headers={"origin": PAGE, **headers})
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, PAGE)
            shown = reply.headers["access-control-expose-headers"].lower()
            assert "x-request-id" in shown
            assert "x-tureen-ignored" in shown
            assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/", "https://a b", "null", "https://*.x.org"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"access.cors_origins: .* is not an origin"):
        load_settings(access={"cors_origins": [origin]})
