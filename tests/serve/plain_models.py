"""Conversations, and a server for one plain folder, for the tests of models that others trained."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve.border import wait_for_models
from starlette.testclient import TestClient

from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, load_settings

TEXT = "why do leaves fall in autumn? the quick brown fox jumps over lazy dogs — naïve 猫 42 + 17 = \n\n `x` yes no"
WORDS = TEXT.split(" ")
Conversation = list[dict[str, str]]


def make_talks(count: int = 50, seed: int = 0, turns: Sequence[int] = (1, 1, 1, 2)) -> list[Conversation]:
    """Random finished conversations of one or more questions with their answers; seeded."""
    draw = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    return [
        [{"role": role, "content": text(20)} for _ in range(draw.choice(turns)) for role in ("user", "assistant")]
        for _ in range(count)
    ]


@contextmanager
def serve_plain(folder: Path, **options: Any) -> Iterator[TestClient]:
    """A server in this process, on transformers in float32, with one plain folder; ``cache`` is the server's."""
    cache = options.pop("cache", None)
    entry = RewardEntry(path=folder, **options)
    app = create_app(load_settings(rewards=[entry], dtype="float32", runtime="transformers", cache=cache))
    with TestClient(app) as client:
        wait_for_models(app)
        assert app.state.server.failure is None, app.state.server.failure
        yield client


def score_talks(client: TestClient, talks: Sequence[Conversation]) -> list[dict[str, float]]:
    """The raw rewards of each conversation by objective, over ``/v1/score``."""
    reply = client.post("/v1/score", json={"items": [{"messages": talk} for talk in talks]})
    assert reply.status_code == 200, reply.text
    found = [row["candidates"][0] for row in reply.json()["data"]]
    assert all(score["calibrated"] is None for row in found for score in row["scores"].values())
    return [{name: score["raw"] for name, score in row["scores"].items()} for row in found]
