"""The audit log: a JSON line for each administrative call and each change of the keys."""

import asyncio
import io
import json
import logging
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from serve.border import Caller as AsgiCaller
from serve.keys import KEY, OTHER, bear, make_entry, write_entries, write_lines
from waiting import wait_until

from tureen_serve.faults import Faults
from tureen_serve.security.audit import LOG, Audit, start_audit_log
from tureen_serve.security.guard import Guard
from tureen_serve.security.key_ring import read_key_ring
from tureen_serve.security.key_watch import KeyWatch
from tureen_serve.security.scopes import KeyScope, RouteScopes
from tureen_serve.settings import load_settings
from tureen_serve.telemetry import App, Receive, Scope, Send

SCOPES = RouteScopes(
    {("POST", "/v1/score"): KeyScope.SCORE}, [("POST", re.compile("^/v1/models/(?P<name>[^/]+)/load$"), KeyScope.ADMIN)]
)


@pytest.fixture
def written() -> io.StringIO:
    """The audit log of a server that else logs errors only."""
    logging.getLogger("tureen_serve").setLevel("ERROR")
    start_audit_log()
    (handler,) = LOG.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream := io.StringIO())
    return stream


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("what happened")


def guarded(app: App, keys: Path) -> App:
    settings, ring = load_settings(keys=keys), read_key_ring(keys)
    return Audit(Faults(Guard(app, lambda: ring, SCOPES, settings)), SCOPES)


def test_who_did_what_with_which_result(tmp_path: Path, written: io.StringIO) -> None:
    (boss, first), (user, second) = make_entry("boss", ["admin"], tenant="ops"), make_entry("user", ["score"])
    keys = write_entries(tmp_path / "keys", first, second)

    async def run() -> None:
        for app, key, path in (
            (_answer, boss, "/v1/models/calm/load"),
            (_answer, user, "/v1/models/calm/load"),
            (_answer, "tur_unknown", "/v1/models/a\nb/load"),
            (_fail, boss, "/v1/models/calm/load"),
            (_answer, user, "/v1/score"),
        ):
            await AsgiCaller(guarded(app, keys), path, {"secret": "body"}, headers=bear(key)).done()

    asyncio.run(run())
    said = written.getvalue()
    assert boss not in said
    assert "body" not in said
    lines = [json.loads(line) for line in said.splitlines()]
    assert [(line["caller"], line["tenant"], line["status"]) for line in lines] == [
        ("boss", "ops", 202),
        ("user", "default", 403),
        (None, None, 401),
        ("boss", "ops", 500),
    ]
    assert {(line["event"], line["method"], line["address"]) for line in lines} == {("admin_call", "POST", "127.0.0.1")}
    assert [line["path"] for line in lines][1:3] == ["/v1/models/calm/load", "/v1/models/a\nb/load"]


def test_new_keys_are_noted_by_name(tmp_path: Path, written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_serve.security.key_watch.EVERY", 0.01)

    async def run() -> None:
        watch = KeyWatch(write_lines(tmp_path, KEY), CollectorRegistry())
        task = asyncio.create_task(watch.run())
        write_lines(tmp_path, KEY, OTHER)
        await wait_until(lambda: len(watch.ring.callers) == 2)
        task.cancel()

    asyncio.run(run())
    (line,) = [json.loads(line) for line in written.getvalue().splitlines()]
    assert (line["event"], line["file"], line["keys"]) == ("keys_read", "keys", ["line-1", "line-2"])
