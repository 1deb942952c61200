"""The routes that change models: who may call them, what OpenAPI says of them, and servers whose models stay."""

import logging
from pathlib import Path

import pytest
from serve.border import application, served
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries

CALLS = [
    ("POST", "/v1/models/calm/load", {}),
    ("POST", "/v1/models/calm/unload", None),
    ("POST", "/v1/models/calm/shadow", {"share": 0.5}),
    ("GET", "/v1/models/calm/shadow", None),
    ("DELETE", "/v1/models/calm/shadow", None),
]


def test_only_the_scope_admin_opens_them_and_every_call_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (boss, first), (user, second) = make_entry("boss", ["admin"]), make_entry("user", ["score", "read", "metrics"])
    keys = write_entries(tmp_path / "keys", first, second)
    with served(keys=keys) as client, caplog.at_level(logging.INFO, "tureen_serve.audit"):
        for method, path, body in CALLS:
            refused = client.request(method, path, json=body, headers=bear(user))
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
            told = client.request(method, path, json=body, headers=bear(boss))
            assert (told.status_code, told.json()["error"]["code"]) == (409, "model_fixed")  # it counts words
    noted = [record.facts for record in caplog.records if record.name == "tureen_serve.audit"]  # type: ignore[attr-defined]
    assert [(each["caller"], each["status"]) for each in noted] == [("user", 403), ("boss", 409)] * len(CALLS)


def test_before_the_models_are_there_nothing_can_change() -> None:
    engine = CountingEngine()
    engine.down = "not yet"
    with served(engine) as client:
        for method, path, body in CALLS:
            assert client.request(method, path, json=body).status_code == 503


def test_every_status_is_documented() -> None:
    paths = application(CountingEngine()).openapi()["paths"]
    for method, path, body in CALLS:
        told = set(paths[path.replace("calm", "{name}")][method.lower()]["responses"])
        wanted = {200, 401, 403, 404, 409, 422, 429, 500, 503, 504} | ({400, 413, 415} if body is not None else set())
        assert told >= {str(each) for each in wanted}, (method, path)
