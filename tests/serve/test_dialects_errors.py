"""What /openapi.json says of a dialect's errors is what its routes answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.keys import KEY, bear, make_entry, write_entries
from serve.route_bodies import DIALECTS
from starlette.testclient import TestClient

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen_serve import dialects

SCORED = [path for path in DIALECTS if "tokenize" not in path]


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def client(engine: CountingEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keys: Path = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    with served(engine, aliases={"default": "calm"}, keys=keys) as found:
        found.headers["authorization"] = f"Bearer {KEY}"
        yield found


@pytest.fixture(scope="module")
def schema(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def check(schema: Any, path: str, reply: Any) -> None:
    """The reply is as the document says of its status, which it names."""
    responses = schema["paths"][path]["post"]["responses"]
    told = responses.get(str(reply.status_code))
    assert told is not None, f"{path} answers {reply.status_code}, and the document knows {sorted(responses)}"
    if "content" not in told:
        assert reply.content == b""
        return
    body = told["content"]["application/json"]["schema"]
    jsonschema.validate(reply.json(), {**body, "components": schema["components"]})
    known = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert set(reply.json()) == set(known["properties"])


def test_every_dialect_with_errors_of_its_own_stands_here() -> None:
    prefixes = {path.split("/")[1] for path in dialects.ERROR_BUILDERS} - {"tokenizer_info"}  # it has no body
    assert {path.split("/")[1] for path in DIALECTS} == prefixes


@pytest.mark.parametrize("path", DIALECTS)
def test_a_good_body_is_none(client: TestClient, path: str) -> None:
    assert client.post(path, json=DIALECTS[path]).status_code == 200


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("content", [b"[]", b"{}", b"{", b'{"model": 3}', b"null"])
def test_what_is_wrong_with_a_body(client: TestClient, schema: Any, path: str, content: bytes) -> None:
    check(schema, path, client.post(path, content=content, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("path", DIALECTS)
def test_what_is_wrong_around_it(client: TestClient, schema: Any, path: str) -> None:
    check(schema, path, client.post(path, json=DIALECTS[path], headers={"authorization": "Bearer wrong"}))
    check(schema, path, client.post(path, content=b"{}", headers={"content-type": "text/plain"}))
    check(schema, path, client.post(path, content=b"x" * 2**24, headers={"content-type": "application/json"}))
    asked = DIALECTS[path] if path.startswith("/gym") else {**DIALECTS[path], "model": "nobody", "lora_path": "nobody"}
    check(schema, path, client.post(f"{path}?model=nobody", json=asked))


@pytest.mark.parametrize("path", SCORED)
@pytest.mark.parametrize(
    "error", [ServerFault("broken"), Unavailable("full"), Unavailable("dead", code="engine_dead"), ValueError("?")]
)
def test_what_is_wrong_with_the_server(
    client: TestClient, schema: Any, engine: CountingEngine, path: str, error: TureenError | ValueError
) -> None:
    engine.broken = error
    try:
        reply = client.post(path, json=DIALECTS[path])
    finally:
        engine.broken = None
    assert reply.status_code >= 400
    check(schema, path, reply)


def test_what_is_wrong_with_a_key(tmp_path: Path, schema: Any) -> None:
    (reader, first), (spent, second) = make_entry("a", ["read"]), make_entry("b", quota={"requests_per_minute": 1})
    with served(keys=write_entries(tmp_path / "keys", first, second)) as client:
        assert client.get("/v1/models", headers=bear(spent)).status_code == 200
        for path, body in DIALECTS.items():
            for key, status in ((reader, 403), (spent, 429)):
                reply = client.post(path, json=body, headers=bear(key))
                assert reply.status_code == status
                check(schema, path, reply)
