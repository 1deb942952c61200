"""A server over tiny real artifacts whose rewards change while it runs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tiny
from fastapi import FastAPI
from httpx2 import Response
from serve.artifacts import build, prove
from serve.border import wait_for_models
from starlette.testclient import TestClient

from tureen_serve.app import create_app
from tureen_serve.settings import load_settings

ITEMS = [{"prompt": "why do leaves fall?", "candidates": ["the wind is lazy", "the lazy dog jumps over them"]}]


def make_versions(folder: Path) -> Path:
    """Write what :func:`serve.artifacts.build` writes, and versions to load in ``folder/models``; the YAML file."""
    config = build(folder)
    base, models = folder / "base", folder / "models"
    prove(tiny.reward(models / "helpful-2", base, "helpful", 71))
    prove(tiny.reward(models / "helpful-3", base, "helpful", 72))
    prove(tiny.reward(models / "calm", base, "calm", 73))
    prove(tiny.reward(models / "off", base, "helpful", 74), off_by=0.5)
    prove(tiny.full_reward(models / "whole", base, "whole", 75))
    prove(tiny.full_reward(models / "whole-2", base, "whole", 76))
    tiny.expert(models / "expert", base, "helpful", 77)
    shutil.copytree(models / "helpful-2", models / "damaged")
    (models / "damaged/adapter_config.json").write_text("{}")
    (models / "link").symlink_to(folder / "helpful")
    return config


class Operator:
    """Who asks for changes, and looks at what is served."""

    def __init__(self, client: TestClient, app: FastAPI) -> None:
        self.client, self.app = client, app

    def post(self, name: str, action: str, **body: Any) -> Response:
        return self.client.post(f"/v1/models/{name}/{action}", json=body)

    def load(self, name: str, **body: Any) -> dict[str, Any]:
        """What a load says that must succeed."""
        reply = self.post(name, "load", **body)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def score(self, **more: Any) -> dict[str, Any]:
        reply = self.client.post("/v1/score", json={"items": ITEMS, **more})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def raw(self, name: str, **more: Any) -> list[float]:
        """The raw rewards of both candidates."""
        answers = self.score(**({"rewards": [name]} | more))["data"][0]["candidates"]
        return [each["scores"][name]["raw"] for each in answers]

    def versions(self) -> dict[str, str]:
        """Reward → fingerprint."""
        cards = self.client.get("/v1/models").json()["data"]
        return {card["id"]: card["fingerprint"] for card in cards if card["kind"] == "reward"}


@contextmanager
def operating(config: Path, reread: bool = False, **settings: Any) -> Iterator[Operator]:
    """A server that may load what is in ``models`` beside the YAML file, which it can read again if it must."""
    read = partial(load_settings, config, **({"load_roots": [config.parent / "models"]} | settings))
    app = create_app(read(), reread=read if reread else None)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_for_models(app)
        assert app.state.server.engine is not None, app.state.server.failure
        yield Operator(client, app)
