"""The guard before the routes: which keys open, what is open without one, and quotas."""

import json
from pathlib import Path

import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.keys import KEY, OTHER, bear, make_entry, write_entries, write_lines
from serve.scrapes import read_samples
from starlette.routing import Route
from starlette.testclient import TestClient
from waiting import block_until

from tureen.errors import Forbidden
from tureen_serve.security.callers import ANONYMOUS, LOCAL
from tureen_serve.security.quotas import Quota
from tureen_serve.security.scopes import KeyScope
from tureen_serve.settings import SettingsError

BODY = {"items": [{"prompt": "hi", "candidates": ["calm", "funny"]}], "rewards": ["calm"]}


def test_paths_that_are_no_route_do_not_tell_so_without_a_key(tmp_path: Path) -> None:
    with served(keys=write_lines(tmp_path, KEY)) as client:
        for path in ("/nope", "/health/live/x", "//health/live", "/health/live/../../metrics", "/HEALTH/LIVE"):
            assert client.get(path).status_code == 401, path
        assert client.get("/nope", headers=bear(KEY)).status_code == 404
        assert client.patch("/v1/score", headers=bear(KEY)).status_code == 405


def test_any_known_key_opens(tmp_path: Path) -> None:
    with served(keys=write_lines(tmp_path, KEY, OTHER)) as client:
        for key in (KEY, OTHER):
            assert client.get("/v1/models", headers=bear(key)).status_code == 200
        assert client.get("/v1/models", headers={"authorization": f"bearer   {KEY} "}).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY} {KEY}"]
)
def test_any_other_does_not(tmp_path: Path, header: str | None) -> None:
    with served(keys=write_lines(tmp_path, KEY)) as client:
        reply = client.get("/v1/models", headers={} if header is None else {"authorization": header})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_a_key_that_has_ended_is_told_so(tmp_path: Path) -> None:
    key, entry = make_entry("loop", expires="2020-01-01T00:00:00Z")
    with served(keys=write_entries(tmp_path / "keys", entry)) as client:
        reply = client.get("/v1/models", headers=bear(key))
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "expired_api_key")


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (bear(KEY), 413)])
def test_a_guarded_body_is_not_read(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    with served(keys=write_lines(tmp_path, KEY), limits={"body_bytes": 10}) as client:
        assert client.post("/v1/score", content=b"x" * 1000, headers=headers).status_code == status


def test_without_keys_this_machine_may_do_everything() -> None:
    with served() as client:
        assert client.get("/v1/models").status_code == client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("origin", "pages", "status"),
    [
        ("https://app.example.org", [], 403),
        ("https://app.example.org", ["https://other.example.org"], 403),
        ("null", [], 403),
        ("http://testserver", [], 200),
        ("https://app.example.org", ["https://app.example.org"], 200),
        ("https://app.example.org", ["*"], 200),
    ],
)
def test_without_keys_other_peoples_pages_may_not_send(origin: str, pages: list[str], status: int) -> None:
    with served(access={"cors_origins": pages}) as client:
        reply = client.post("/v1/score", json=BODY, headers={"origin": origin})
        assert reply.status_code == status
        if status == 403:
            assert reply.json()["error"]["code"] == "foreign_origin"
            upload = client.post(
                "/v1/files", data={"purpose": "batch"}, files={"file": b"{}"}, headers={"origin": origin}
            )
            assert upload.status_code == 403


REBOUND = {"host": "evil.example.org:8900"}


def test_without_keys_no_page_reaches_the_server_by_a_name_of_its_own(tmp_path: Path) -> None:
    with served(batches={"enabled": True, "folder": tmp_path}) as client:
        routes = [route for route in client.app.routes if isinstance(route, Route)]  # type: ignore[attr-defined]
        for route in routes:
            for method in route.methods or ():
                reply = client.request(method, route.path, headers=REBOUND, json={})
                free = route.path in {"/health/live", "/health/ready"}
                assert (reply.status_code == 403) is not free, (method, route.path)
        own = {"origin": "http://evil.example.org:8900"}
        told = client.post("/v1/score", json=BODY, headers=REBOUND | own).json()["error"]
        assert told["code"] == "foreign_host"
        assert told["message"].endswith("use its address, or name it in `access.hosts`")
        assert client.post("/v1/score", json=BODY, headers={"host": "127.0.0.1:8900"}).status_code == 200


def test_a_server_with_keys_may_have_any_name_unless_a_setting_says_which(tmp_path: Path) -> None:
    keys = write_lines(tmp_path, KEY)
    for options, status in (({}, 200), ({"hosts": ["rewards.example.org"]}, 403), ({"hosts": ["*"]}, 200)):
        with served(keys=keys, access=options) as client:
            assert client.get("/v1/models", headers=bear(KEY) | REBOUND).status_code == status
            named = bear(KEY) | {"host": "rewards.example.org:443"}
            assert client.get("/v1/models", headers=named).status_code == 200


def test_anonymous_callers_of_the_network_are_served_only_where_a_setting_says_so() -> None:
    with served(host="0.0.0.0", access={"anonymous": True}) as client:
        assert client.post("/v1/score", json=BODY).status_code == 200
    for scope in (KeyScope.SCORE, KeyScope.METRICS):
        ANONYMOUS.require_scope(scope)
    with pytest.raises(Forbidden):
        ANONYMOUS.require_scope(KeyScope.ADMIN)
    LOCAL.require_scope(KeyScope.ADMIN)


def test_a_weak_key_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 1 of keys"), served(keys=write_lines(tmp_path, "k" * 20)):
        pass


def test_metrics_need_their_scope_unless_a_setting_opens_them(tmp_path: Path) -> None:
    key, entry = make_entry("scraper", ["metrics"])
    keys = write_entries(tmp_path / "keys", entry)
    with served(keys=keys) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=bear(key)).status_code == 200
        assert client.get("/v1/models", headers=bear(key)).status_code == 403
    with served(keys=keys, access={"open_metrics": True}) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_a_running_server_takes_new_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_serve.security.key_watch.EVERY", 0.01)
    keys = write_lines(tmp_path, KEY)
    with served(keys=keys) as client:
        write_lines(tmp_path, OTHER)
        block_until(lambda: client.get("/v1/models", headers=bear(OTHER)).status_code == 200)
        assert client.get("/v1/models", headers=bear(KEY)).status_code == 401
        assert "tureen_keys 1.0" in client.get("/metrics", headers=bear(OTHER)).text
    with served(keys=keys) as client:
        assert client.get("/v1/models", headers=bear(OTHER)).status_code == 200


def test_the_quota_of_requests_holds_on_every_dialect(tmp_path: Path) -> None:
    key, entry = make_entry("loop", quota={"requests_per_minute": 1})
    with served(keys=write_entries(tmp_path / "keys", entry)) as client:
        assert client.get("/v1/models", headers=bear(key)).status_code == 200
        for path in ("/v1/score", "/tei/predict", "/infinity/rerank", "/vllm/score", "/gym/verify", "/v1/files"):
            reply = client.post(path, json=BODY, headers=bear(key))
            assert reply.status_code == 429, path
            assert 1 <= int(reply.headers["retry-after"]) <= 60
            assert "quota of 1 requests a minute" in reply.text
        assert client.get("/health/ready").status_code == 200
    assert client.post("/v1/score", json=BODY, headers=bear(key)).json()["error"]["code"] == "requests_quota_exceeded"


def test_the_quota_of_tokens_is_used_by_scores_and_texts(tmp_path: Path) -> None:
    made = [make_entry(name, quota={"tokens_per_minute": 1}) for name in ("scorer", "writer", "reader")]
    chat = {"model": "words", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    with served(keys=write_entries(tmp_path / "keys", *(entry for _, entry in made))) as client:
        for (key, _), (path, body) in zip(made, (("/v1/score", BODY), ("/v1/chat/completions", chat)), strict=False):
            reply = client.post(path, json=body, headers=bear(key))
            assert reply.status_code == 200, reply.text
            refused = client.post(path, json=body, headers=bear(key))
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "tokens_quota_exceeded"
            assert refused.json()["error"]["type"] == "rate_limit_error"
        assert client.get("/v1/models", headers=bear(made[2][0])).status_code == 200


def count_charges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    charged: list[int] = []
    monkeypatch.setattr(Quota, "charge_tokens", lambda _, tokens: charged.append(tokens))
    return charged


def read_tokens(client: TestClient, key: str) -> dict[tuple[str, str], float]:
    """Model and direction → the tokens that the metrics tell."""
    told = client.get("/metrics", headers=bear(key)).text
    samples = (each for each in read_samples(told) if each.name == "tureen_tokens_total")
    return {(each.labels["model"], each.labels["direction"]): each.value for each in samples}


def test_judging_candidates_is_charged_to_their_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, entry = make_entry("writer", quota={"tokens_per_minute": 10**6})
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "preferences": {"calm": 1}}
    charged = count_charges(monkeypatch)
    with served(keys=write_entries(tmp_path / "keys", entry)) as client:
        body = chat | {"candidates": {"n": 3, "preferences": {"calm": 0.5, "funny": 0.5}}}
        assert client.post("/v1/chat/completions", json=body, headers=bear(key)).status_code == 200
        told = read_tokens(client, key)
        assert told["words", "out"] == 6
        assert told["calm", "in"] == told["funny", "in"] > 6
        assert sum(charged) == sum(told.values())


def test_a_text_that_fails_is_charged_with_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, entry = make_entry("writer", quota={"tokens_per_minute": 10**6})
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    engine = CountingEngine()
    engine.breaks_after = 2
    charged = count_charges(monkeypatch)
    with served(engine, keys=write_entries(tmp_path / "keys", entry)) as client:
        assert client.post("/v1/chat/completions", json=chat, headers=bear(key)).status_code >= 500
        told = read_tokens(client, key)
        assert told["words", "out"] == 2
        assert sum(charged) == sum(told.values())
        engine.breaks_after = 0
        assert client.post("/v1/chat/completions", json=chat, headers=bear(key)).status_code >= 500
        assert (sum(charged), read_tokens(client, key)) == (sum(told.values()), told)


def test_a_batch_needs_the_scope_of_its_endpoint(tmp_path: Path) -> None:
    (both, first), (alone, second) = make_entry("both", ["batch", "score"]), make_entry("alone", ["batch"])
    keys = write_entries(tmp_path / "keys", first, second)
    line = {"custom_id": "a", "method": "POST", "url": "/v1/score", "body": BODY}
    with served(keys=keys, batches={"enabled": True, "folder": tmp_path / "state"}) as client:
        block_until(lambda: client.get("/health/ready").json()["batches"] == "working")
        form = {"purpose": "batch"}, {"file": ("a.jsonl", json.dumps(line).encode())}
        file = client.post("/v1/files", data=form[0], files=form[1], headers=bear(alone)).json()["id"]
        wanted = {"input_file_id": file, "endpoint": "/v1/score", "completion_window": "24h"}
        refused = client.post("/v1/batches", json=wanted, headers=bear(alone))
        assert refused.status_code == 403
        assert "the scope `score`" in refused.json()["error"]["message"]
        assert client.post("/v1/batches", json=wanted, headers=bear(both)).status_code == 200
