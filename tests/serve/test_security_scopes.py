"""The scopes of the routes: every route of the application has one, and refuses a key without it in its own words."""

import json
import re
from pathlib import Path

import pytest
from serve.border import application, served
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tureen.errors import Forbidden
from tureen_serve.app import OPENAI_ERRORS, _find_scopes
from tureen_serve.dialects import ERROR_BUILDERS
from tureen_serve.faults import build_error_reply
from tureen_serve.security.scopes import ALL_SCOPES, OPEN, PAGE_FILES, SCOPES, KeyScope, UnguardedRoute, match_routes

APP = application(CountingEngine())
ROUTES = [route for route in APP.routes if isinstance(route, Route)]
CALLS = sorted((method, route.path) for route in ROUTES for method in route.methods or () if route.path != PAGE_FILES)
GUARDED = [(method, path) for method, path in CALLS if path not in OPEN]


def fill(path: str) -> str:
    return re.sub(r"{\w+}", "calm", path)


def test_every_route_has_a_scope_and_every_scope_a_route() -> None:
    assert len(GUARDED) > 50
    assert {(method, path) for method, path in GUARDED if method != "HEAD"} == set(SCOPES)
    assert {path for _, path in CALLS} > OPEN


def test_the_scope_of_a_request_is_that_of_the_route_that_answers_it() -> None:
    scopes = _find_scopes(APP)
    for method, path in GUARDED:
        expected = SCOPES["GET" if method == "HEAD" else method, path]
        assert scopes.find_scope(method, fill(path)) is expected, (method, path)
    for method, path in (("GET", "/nope"), ("PATCH", "/v1/score"), ("GET", "/v1/models/a/b"), ("POST", "/v1/score/")):
        assert scopes.find_scope(method, path) is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_route_without_a_scope_is_refused(method: str) -> None:
    pattern = re.compile("/v1/models/[^/]+/secret$")
    with pytest.raises(UnguardedRoute, match=f"{method} /v1/models/{{name}}/secret has no scope"):
        match_routes([([method], "/v1/models/{name}/secret", pattern)])
    app = application(CountingEngine())
    app.router.routes.append(Mount("/files", APP))
    with pytest.raises(UnguardedRoute, match="mounted"):
        _find_scopes(app)


def ask(client: TestClient, method: str, path: str, key: str = "") -> tuple[int, str]:
    reply = client.request(method, fill(path), headers=bear(key) if key else {})
    return reply.status_code, reply.text


@pytest.mark.parametrize("ending", ["/", "///", "%2F"])
def test_a_slash_at_the_end_opens_nothing_and_asks_for_the_same_scope(tmp_path: Path, ending: str) -> None:
    made = {scope: make_entry(f"all-but-{scope}", ALL_SCOPES - {scope}) for scope in KeyScope}
    keys = write_entries(tmp_path / "keys", *(entry for _, entry in made.values()))
    with served(keys=keys) as client:
        for method, path in CALLS:
            if path == "/":
                continue
            without, _ = ask(client, method, f"{path}{ending}")
            if path in OPEN:
                assert without == 200
                continue
            assert without == 401, (method, path)
            scope = SCOPES["GET" if method == "HEAD" else method, path]
            other = next(each for each in KeyScope if each is not scope)
            assert ask(client, method, f"{path}{ending}", made[scope][0])[0] == 403, (method, path)
            assert ask(client, method, f"{path}{ending}", made[other][0])[0] not in (401, 403), (method, path)


def test_every_route_but_two_refuses_no_key_and_a_key_without_its_scope(tmp_path: Path) -> None:
    made = {scope: make_entry(f"all-but-{scope}", ALL_SCOPES - {scope}) for scope in KeyScope}
    keys = write_entries(tmp_path / "keys", *(entry for _, entry in made.values()))
    with served(keys=keys) as client:
        for method, path in CALLS:
            if path in OPEN:
                assert ask(client, method, path)[0] == 200
                continue
            scope = SCOPES["GET" if method == "HEAD" else method, path]
            assert ask(client, method, path)[0] == 401, (method, path)
            reply = client.request(method, fill(path), headers=bear(made[scope][0]))
            says = f"this needs the scope `{scope}`, and the key 'all-but-{scope}' has: "
            assert reply.status_code == 403, (method, path)
            if method == "HEAD":
                continue
            assert says in reply.text, (method, path)
            build = {**OPENAI_ERRORS, **ERROR_BUILDERS}.get(path, build_error_reply)
            theirs = json.loads(bytes(build(Forbidden("no")).body))
            assert reply.json().keys() == theirs.keys(), (method, path)
            other = next(each for each in KeyScope if each is not scope)
            assert ask(client, method, path, made[other][0])[0] not in (401, 403), (method, path)
