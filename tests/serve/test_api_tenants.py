"""Files and batches are found by their own tenant's keys, and by those with the scope ``admin``."""

from collections.abc import Iterator
from typing import Any

import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries
from serve.requests import scores
from starlette.testclient import TestClient
from waiting import block_until

from tureen_serve.inference.demand import TENANT

USER = ("score", "batch")
KEYS = {
    "red": make_entry("red", USER, tenant="red"),
    "red too": make_entry("red-too", USER, tenant="red"),
    "blue": make_entry("blue", USER, tenant="blue"),
    "nobody": make_entry("nobody", USER),
    "nobody too": make_entry("nobody-too", USER),
    "operator": make_entry("operator", (*USER, "admin"), tenant="blue"),
}
OWNERS = ("red", "blue", "nobody")
FINDS = {
    "red": {"red"},
    "red too": {"red"},
    "blue": {"blue"},
    "nobody": {"nobody"},
    "nobody too": {"nobody"},
    "operator": {"red", "blue", "nobody"},
}


class Tenants:
    """A server with keys of several tenants, each of which has a file and a batch that has ended."""

    def __init__(self, client: TestClient, scored: list[str]) -> None:
        self.client = client
        self.scored = scored
        block_until(lambda: self.ask("red", "GET", "/v1/files").status_code == 200)
        self.files = {who: self.upload(who) for who in OWNERS}
        self.batches = {who: self.begin(who, file) for who, file in self.files.items()}
        self.outputs = {who: self.end(who, batch) for who, batch in self.batches.items()}

    def ask(self, who: str, method: str, path: str, **body: Any) -> Any:
        return self.client.request(method, path, headers=bear(KEYS[who][0]) | body.pop("headers", {}), **body)

    def upload(self, who: str) -> str:
        form: Any = {"files": {"file": ("in.jsonl", scores(3))}, "data": {"purpose": "batch"}}
        return str(self.ask(who, "POST", "/v1/files", **form).json()["id"])

    def make(self, who: str, file: str, **headers: str) -> Any:
        body = {"input_file_id": file, "endpoint": "/v1/score", "completion_window": "24h"}
        return self.ask(who, "POST", "/v1/batches", json=body, headers=headers)

    def begin(self, who: str, file: str) -> str:
        return str(self.make(who, file).json()["id"])

    def end(self, who: str, batch: str) -> str:
        block_until(lambda: self.ask(who, "GET", f"/v1/batches/{batch}").json()["status"] == "completed")
        return str(self.ask(who, "GET", f"/v1/batches/{batch}").json()["output_file_id"])

    def list(self, who: str, what: str, **query: Any) -> list[str]:
        return [each["id"] for each in self.ask(who, "GET", f"/v1/{what}", params=query).json()["data"]]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    keys = write_entries(folder / "keys", *(entry for _, entry in KEYS.values()))
    options = {"enabled": True, "folder": folder / "data", "poll_seconds": 0.05}
    engine, scored = CountingEngine(), list[str]()
    score = engine.score

    async def note_tenant(*told: Any, **options: Any) -> Any:
        scored.append(TENANT.get())
        return await score(*told, **options)

    engine.score = note_tenant  # type: ignore[method-assign]
    with served(engine, keys=keys, batches=options) as client:
        yield Tenants(client, scored)


def test_the_lines_of_a_batch_count_for_its_tenant(tenants: Tenants) -> None:
    assert set(tenants.scored) == {"red", "blue", "default"}


@pytest.mark.parametrize("who", KEYS)
def test_a_key_lists_what_its_tenant_has(tenants: Tenants, who: str) -> None:
    files = [*tenants.files.items(), *tenants.outputs.items()]
    assert set(tenants.list(who, "files")) == {name for owner, name in files if owner in FINDS[who]}
    assert set(tenants.list(who, "batches")) == {tenants.batches[owner] for owner in FINDS[who]}
    assert tenants.list(who, "files", purpose="batch_output", order="asc") == [
        tenants.outputs[owner] for owner in OWNERS if owner in FINDS[who]
    ]


@pytest.mark.parametrize("who", KEYS)
def test_what_another_tenant_has_is_as_unknown_as_an_unknown_id(tenants: Tenants, who: str) -> None:
    for owner in set(OWNERS) - FINDS[who]:
        pairs = [
            ("GET", "/v1/files/{}", tenants.files[owner], "file-0"),
            ("GET", "/v1/files/{}/content", tenants.files[owner], "file-0"),
            ("GET", "/v1/files/{}/content", tenants.outputs[owner], "file-0"),
            ("DELETE", "/v1/files/{}", tenants.files[owner], "file-0"),
            ("DELETE", "/v1/files/{}", tenants.outputs[owner], "file-0"),
            ("GET", "/v1/batches/{}", tenants.batches[owner], "batch_0"),
            ("POST", "/v1/batches/{}/cancel", tenants.batches[owner], "batch_0"),
            ("GET", "/v1/files?after={}", tenants.files[owner], "file-0"),
            ("GET", "/v1/batches?after={}", tenants.batches[owner], "batch_0"),
        ]
        for method, path, name, unknown in pairs:
            replies = [tenants.ask(who, method, path.format(each)) for each in (name, unknown)]
            found, other = (reply.json()["error"] for reply in replies)
            assert [reply.status_code for reply in replies] == [404, 404], (method, path)
            assert found == other | {"message": other["message"].replace(unknown, name)}
        made = tenants.make(who, tenants.files[owner])
        assert (made.status_code, made.json()["error"]["code"]) == (404, "file_not_found")


@pytest.mark.parametrize("who", KEYS)
def test_what_a_key_finds_it_may_read(tenants: Tenants, who: str) -> None:
    for owner in FINDS[who]:
        assert tenants.ask(who, "GET", f"/v1/batches/{tenants.batches[owner]}").status_code == 200
        content = tenants.ask(who, "GET", f"/v1/files/{tenants.outputs[owner]}/content").content
        assert content == tenants.ask(owner, "GET", f"/v1/files/{tenants.outputs[owner]}/content").content != b""


def test_an_idempotency_key_counts_for_its_tenant_only(tenants: Tenants) -> None:
    first = {who: tenants.make(who, tenants.files[who], **{"Idempotency-Key": "one"}).json()["id"] for who in OWNERS}
    again = {who: tenants.make(who, tenants.files[who], **{"Idempotency-Key": "one"}).json()["id"] for who in OWNERS}
    assert first == again
    assert len(set(first.values())) == len(OWNERS)
    shared = tenants.make("red too", tenants.files["red"], **{"Idempotency-Key": "one"}).json()["id"]
    assert shared == first["red"]


def test_an_operator_may_delete_what_others_have(tenants: Tenants) -> None:
    file = tenants.upload("red")
    assert tenants.ask("blue", "DELETE", f"/v1/files/{file}").status_code == 404
    assert tenants.ask("operator", "DELETE", f"/v1/files/{file}").json()["deleted"] is True
    assert tenants.ask("red", "GET", f"/v1/files/{file}").status_code == 404
