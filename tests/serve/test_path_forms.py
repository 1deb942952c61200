"""Methods and paths as clients write them."""

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest
from serve.artifacts import build
from serve.border import served
from serve.foreign import KEY, locked
from serve.processes import run_server

BODY = {"messages": [{"role": "user", "content": "hi"}]}


def test_a_slash_at_the_end_is_nothing() -> None:
    with served() as client:
        assert client.post("/v1/chat/completions/", json=BODY).status_code == 200
        assert client.get("/v1/models/").json() == client.get("/v1/models").json()
        assert client.get("/v1/models/words/").json()["id"] == "words"
        assert client.get("//").status_code == client.get("/").status_code
        assert client.get("/nowhere/").status_code == 404
        told = client.get("/metrics").text
    assert 'route="/v1/chat/completions",status="200"' in told


def test_the_guard_knows_a_path_with_a_slash(tmp_path: Path) -> None:
    with locked(tmp_path) as client:
        assert client.get("/v1/models/").status_code == 401
        assert client.get("/v1/models/", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("header", ["api-key", "x-api-key"])
def test_a_key_may_be_where_other_clients_send_it(header: str, tmp_path: Path) -> None:
    with locked(tmp_path) as client:
        assert client.get("/v1/models", headers={header: KEY}).status_code == 200
        assert client.get("/v1/models", headers={header: "wrong"}).status_code == 401
        both = {header: KEY, "authorization": "Bearer wrong"}
        assert client.get("/v1/models", headers=both).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/score", "POST"),
        ("HEAD", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/files", "GET, HEAD, POST"),
        ("POST", "/v1/files/file-1", "DELETE, GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allow: str) -> None:
    with served() as client:
        reply = client.request(method, path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allow)


@pytest.mark.long
def test_head_has_the_headers_of_get_and_no_body(tmp_path: Path) -> None:
    with run_server(build(tmp_path)) as running:
        found = []
        with closing(http.client.HTTPConnection(running.address.removeprefix("http://"), timeout=60)) as link:
            for method in ("GET", "HEAD", "GET"):  # on one connection: a body after HEAD would spoil the next reply
                link.request(method, "/v1/models")
                reply = link.getresponse()
                found.append((reply.status, reply.headers["content-length"], reply.read()))
    assert [status for status, _, _ in found] == [200] * 3
    assert found[0][1] == found[1][1] == str(len(found[0][2]))
    assert found[1][2] == b""
    assert json.loads(found[2][2])["object"] == "list"
