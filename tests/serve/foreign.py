"""What every dialect is tried on: a real server of two tiny rewards, and the ways in which a text has no reward."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import tiny
from serve.artifacts import build
from serve.border import listening, served
from serve.counting import CountingEngine
from starlette.testclient import TestClient

from tureen.errors import Unavailable
from tureen.wire import TIMEOUT_HEADER
from tureen_serve.app import load_engine
from tureen_serve.settings import load_settings

LONG = "word " * 400
KEY = "a-key-of-enough-characters"
TROUBLES = {"dead": 503, "dying": 503, "full": 503, "late": 504, "broken": 500}  # and our own status for each


@contextmanager
def real_server(folder: Path) -> Iterator[str]:
    """The address of a server of the rewards ``helpful`` and ``amusing``, written to a folder."""
    with listening(load_engine(load_settings(build(folder)), lambda _: None)) as address:
        yield address


def native(address: str, prompt: Any, answers: Sequence[Any], **options: Any) -> list[dict[str, float]]:
    """Raw rewards of a prompt's answers by ``/v1/score``."""
    body = {"items": [{"prompt": prompt, "candidates": list(answers)}], **options}
    reply = httpx2.post(f"{address}/v1/score", json=body)
    assert reply.status_code == 200, reply.text
    candidates = reply.json()["data"][0]["candidates"]
    return [{name: score["raw"] for name, score in each["scores"].items()} for each in candidates]


def rendered(*messages: Mapping[str, str], opened: bool = False) -> str:
    """A conversation in the template of all tiny models, ``opened`` for an answer."""
    text: str = tiny.tokenizer().apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
    return text


@contextmanager
def troubled(trouble: str) -> Iterator[TestClient]:
    """A client of a server that has one of :data:`TROUBLES` with every text."""
    engine = CountingEngine()
    if trouble == "dead":
        engine.down = "the runtime ended"
    elif trouble == "late":
        engine.gate.clear()
    else:
        ends = {
            "dying": Unavailable("the runtime ended", code="engine_dead"),
            "full": Unavailable("the queue is full"),
            "broken": RuntimeError("of the inside"),
        }
        engine.broken = ends[trouble]
    with served(engine) as client:
        client.headers[TIMEOUT_HEADER] = "50" if trouble == "late" else "5000"
        yield client


@contextmanager
def locked(folder: Path) -> Iterator[TestClient]:
    """A client without a key of a server that wants :data:`KEY`."""
    keys = folder / "keys"
    keys.write_text(KEY)
    with served(keys=keys) as client:
        yield client
