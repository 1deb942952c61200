"""An engine whose rewards have no calibration. ``calm`` counts words: with its calibration, two would be 0.5."""

from dataclasses import replace
from typing import Any

from serve.counting import CountingEngine
from starlette.testclient import TestClient

NAMED = "calm has no calibration"
REMEDY = "`tureen-train import --calibrate`"
BARE = ("calm", "duel", "proof")


def bare_engine(*names: str) -> CountingEngine:
    """An engine whose rewards ``calm``, ``duel`` and ``proof`` have no calibration."""
    engine = CountingEngine(*names)
    engine.rewards = {
        name: replace(each, calibration=None) if name in BARE else each for name, each in engine.rewards.items()
    }
    return engine


def ask(client: TestClient, path: str, **body: Any) -> Any:
    """The reply to a body."""
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(client: TestClient, path: str, **body: Any) -> Any:
    """The error that a body is refused with."""
    reply = client.post(path, json=body)
    assert reply.status_code in (400, 422), reply.text
    assert REMEDY in reply.text
    return reply.json()["error"]
