"""Keys: how a file of them is read, and that every route but two is guarded."""

import hashlib
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from serve.border import served

from tureen_serve.security import OPEN, read_keys
from tureen_serve.settings import SettingsError

KEY = "tur_0123456789abcdef0123456789abcdef"
OTHER = "tur_fedcba9876543210fedcba9876543210"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "keys"
    path.write_text("\n".join(lines))
    return path


def test_a_file_holds_keys_or_their_digests_and_comments(tmp_path: Path) -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    found = read_keys(write(tmp_path, "# the team", f"  {KEY}  ", "", f"sha256:{digest}"))
    assert found == (hashlib.sha256(KEY.encode()).digest(), bytes.fromhex(digest))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["# none yet"], "has no key"),
        ([KEY, "short"], "line 2"),
        (["two words are no key at all"], "line 1"),
        (["schlüssel-schlüssel-schlüssel"], "line 1"),
        (["sha256:0123"], "line 1"),
    ],
)
def test_a_key_that_can_be_guessed_is_refused_without_being_shown(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        read_keys(write(tmp_path, *lines))
    assert KEY not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(tmp_path)


def test_every_route_but_two_needs_a_key(tmp_path: Path) -> None:
    with served(keys=write(tmp_path, KEY)) as client:
        routes = [route for route in client.app.routes if hasattr(route, "methods")]  # type: ignore[attr-defined]
        assert len(routes) >= 11
        for route in routes:
            path = route.path.replace("{name}", "calm")
            for method in route.methods:
                reply = client.request(method, path)
                assert (reply.status_code == 401) == (route.path not in OPEN), (method, path)
    assert {route.path for route in routes if isinstance(route, APIRoute)} >= OPEN


def test_paths_that_are_no_route_do_not_tell_so_without_a_key(tmp_path: Path) -> None:
    with served(keys=write(tmp_path, KEY)) as client:
        for path in ("/nope", "/health/live/", "//health/live", "/health/live/../../metrics", "/HEALTH/LIVE"):
            assert client.get(path).status_code == 401, path


def test_any_known_key_opens(tmp_path: Path) -> None:
    with served(keys=write(tmp_path, KEY, OTHER)) as client:
        for key in (KEY, OTHER):
            assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/v1/models", headers={"authorization": f"bearer   {KEY} "}).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY} {KEY}"]
)
def test_any_other_does_not(tmp_path: Path, header: str | None) -> None:
    with served(keys=write(tmp_path, KEY)) as client:
        reply = client.get("/v1/models", headers={} if header is None else {"authorization": header})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_a_guarded_body_is_not_read(tmp_path: Path) -> None:
    with served(keys=write(tmp_path, KEY), limits={"body_bytes": 10}) as client:
        assert client.post("/v1/score", content=b"x" * 1000).status_code == 401


def test_without_keys_there_is_no_guard() -> None:
    with served() as client:
        assert client.get("/v1/models").status_code == 200
