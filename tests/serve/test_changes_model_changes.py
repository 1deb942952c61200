"""Rewards that are loaded, replaced, unloaded and shadowed by requests, over tiny real models."""

import gc
import json
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from serve.changing import ITEMS, Operator, make_versions, operating
from serve.scrapes import sample
from waiting import block_until

from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.inference.shelf import SCAN_SECONDS
from tureen_serve.runtimes.catalogue import Backbone
from tureen_serve.runtimes.late_loader import Group, LateLoader
from tureen_serve.settings import RewardEntry


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def operator(config: Path) -> Iterator[Operator]:
    with operating(config, aliases={"judge": "amusing"}) as found:
        yield found


def served_alone(config: Path, folder: str, name: str) -> list[float]:
    """What a fresh server gives that serves nothing else."""
    with operating(config, rewards=[{"path": str(config.parent / folder)}], families=[]) as other:
        return other.raw(name)


def test_a_version_takes_over_and_its_neighbours_batches_and_soups_go_on(config: Path, operator: Operator) -> None:
    before, beside, old = operator.raw("helpful"), operator.raw("amusing"), operator.versions()
    reached = operator.app.state.server.engine.scorers[0].speed
    told = operator.load("helpful", path="helpful-2")
    assert (told["action"], told["rewards"], told["replaced"]) == ("loaded", ["helpful"], old["helpful"])
    assert operator.versions() == {"helpful": told["fingerprint"], "amusing": old["amusing"]}
    assert operator.raw("helpful") == pytest.approx(served_alone(config, "models/helpful-2", "helpful"), abs=1e-5)
    assert operator.raw("helpful") != pytest.approx(before, abs=1e-3)  # no cached score of the old one
    assert operator.raw("amusing") == pytest.approx(beside, abs=1e-5)
    mixed = operator.score(preferences={"helpful": 0.5, "amusing": 0.5}, soup=True)
    assert mixed["fingerprint"] == operator.versions()
    (lane,) = operator.app.state.server.engine.scorers
    assert lane.speed._full >= reached._full > 0  # what is known of its speed is not forgotten
    refused = operator.client.post(
        "/v1/score", json={"items": ITEMS, "rewards": ["helpful"], "fingerprint": old["helpful"]}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "fingerprint_mismatch")
    text = operator.client.get("/metrics").text
    assert sample(text, "tureen_model_changes_total", action="load", result="done") == 1
    assert sample(text, "tureen_model_change_seconds_count", action="load") == 1


def test_new_rewards_come_and_go_and_the_folder_of_a_reward_is_read_again(operator: Operator) -> None:
    old = operator.versions()
    added = operator.load("calm", path="calm")
    assert added["replaced"] is None
    operator.load("whole", path="whole")
    assert list(operator.versions()) == ["helpful", "amusing", "calm", "whole"]
    assert operator.score(preferences={"calm": 1, "helpful": 1}, soup=True)["fingerprint"].keys() == {"calm", "helpful"}
    same = operator.load("whole")
    assert same["replaced"] == same["fingerprint"] == operator.versions()["whole"]
    for name in ("calm", "whole"):
        gone = operator.client.post(f"/v1/models/{name}/unload")
        assert (gone.status_code, gone.json()["fingerprint"]) == (200, None)
        asked = operator.client.post("/v1/score", json={"items": ITEMS, "rewards": [name]})
        assert (asked.status_code, asked.json()["error"]["code"]) == (422, "unknown_reward")
    assert operator.versions() == old


REFUSED: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("helpful", "load", {"path": "../helpful"}, 422, "path_not_allowed", "`..`"),
    ("helpful", "load", {"path": "/etc"}, 422, "path_not_allowed", "no folder below"),
    ("helpful", "load", {"path": "link"}, 422, "path_not_allowed", "link out of its root"),
    ("helpful", "load", {"path": "calm"}, 422, "other_reward", "scores calm, not helpful"),
    ("helpful", "load", {"path": "off"}, 422, "model_unusable", "the score of a probe differs"),
    ("helpful", "load", {"path": "damaged"}, 422, "model_unusable", "adapter_config.json"),
    ("helpful", "load", {"path": "expert"}, 422, "model_unusable", "a reward is expected"),
    ("helpful", "load", {"promote": True}, 404, "no_shadow", "has no shadow"),
    ("helpful", "load", {"paht": "calm"}, 422, "invalid_value", "paht"),
    ("nobody", "load", {}, 404, "model_not_found", "served: amusing, helpful"),
    ("nobody", "unload", {}, 404, "model_not_found", "served: amusing, helpful"),
    ("amusing", "unload", {}, 409, "alias_broken", "aliases.judge"),
    ("tiny", "load", {"path": "calm"}, 409, "model_fixed", "is a policy"),
    ("judge", "load", {"path": "calm", "rename": True}, 409, "alias_broken", "choose another name"),
    ("new", "load", {"path": "helpful-2", "rename": True}, 409, "name_taken", "two reward artifacts"),
    ("helpful", "shadow", {"path": "off", "share": 1}, 422, "model_unusable", "the score of a probe differs"),
    ("helpful", "shadow", {"path": "calm", "share": 0}, 422, "invalid_value", "share"),
]


def test_what_is_refused_changes_nothing_and_is_said(operator: Operator) -> None:
    before, raw = operator.versions(), operator.raw("helpful")
    for name, action, body, status, code, says in REFUSED:
        reply = operator.post(name, action, **body)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (status, code), error
        assert says in error["message"], error
        assert str(Path.home()) not in error["message"]
    assert operator.versions() == before
    assert operator.raw("helpful") == raw
    refused = sample(operator.client.get("/metrics").text, "tureen_model_changes_total", result="refused")
    assert refused == len(REFUSED) - 2  # of two the body is wrong
    assert operator.client.get("/health/ready").status_code == 200


def test_without_roots_only_what_the_configuration_names_is_read_again(config: Path) -> None:
    with operating(config, load_roots=[]) as operator:
        refused = operator.post("helpful", "load", path=str(config.parent / "models/helpful-2"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "path_not_allowed")
        assert operator.load("helpful")["fingerprint"] == operator.versions()["helpful"]


def test_requests_get_one_whole_version_while_versions_change(operator: Operator) -> None:
    known: dict[str, list[float]] = {operator.versions()["helpful"]: operator.raw("helpful")}
    for folder in ("helpful-2", "helpful-3"):
        version = operator.load("helpful", path=folder)["fingerprint"]
        known[version] = operator.raw("helpful")
    ended, seen = threading.Event(), set[str]()
    wrong: list[tuple[str, Any]] = []

    def ask() -> None:
        while not ended.is_set():
            reply = operator.client.post("/v1/score", json={"items": ITEMS * 3, "rewards": ["helpful"]})
            if reply.status_code != 200:
                wrong.append((reply.text, None))
                continue
            version = reply.json()["fingerprint"]["helpful"]
            seen.add(version)
            for item in reply.json()["data"]:
                found = [each["scores"]["helpful"]["raw"] for each in item["candidates"]]
                if not np.allclose(found, known[version], atol=1e-5):
                    wrong.append((version, found))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for each in asking:
        each.start()
    for folder in ("helpful-2", "helpful-3", "helpful-2", "helpful-3"):
        seen.clear()
        version = operator.load("helpful", path=folder)["fingerprint"]
        block_until(partial(seen.__contains__, version))
    ended.set()
    for each in asking:
        each.join()
    assert wrong == []


def test_an_old_version_gives_its_memory_back_when_its_last_request_ends(operator: Operator) -> None:
    operator.load("whole", path="whole")
    engine = operator.app.state.server.engine
    (old,) = [each for each in engine.registry.current.served if "whole" in each.versions]
    assert isinstance(old, ServedBackbone)
    weights = [weakref.ref(each) for each in old.lane._scorer._backbone.parameters()]  # type: ignore[attr-defined]
    del old
    gc.collect()
    gc.disable()
    try:
        with engine.hold():
            operator.load("whole", path="whole-2")
            assert all(each() is not None for each in weights)
        # a request ends on the loop, and lets the lane close
        operator.raw("whole")
        block_until(lambda: all(each() is None for each in weights))
    finally:
        gc.enable()


def test_a_second_change_of_one_reward_is_refused_and_those_of_others_wait(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened, reached = LateLoader.load, threading.Event(), threading.Event()

    def hold(loader: LateLoader, group: Group) -> Backbone:
        reached.set()
        assert opened.wait(60)
        return real(loader, group)

    monkeypatch.setattr(LateLoader, "load", hold)
    told: dict[str, int] = {}

    def load(name: str, path: str) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: told.update({name: operator.post(name, "load", path=path).status_code})
        )
        thread.start()
        return thread

    first = load("helpful", "helpful-2")
    assert reached.wait(60)
    second = load("calm", "calm")
    refused = operator.post("helpful", "load", path="helpful-3")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "change_running")
    assert operator.score()["fingerprint"].keys() == {"helpful", "amusing"}  # the server serves meanwhile
    opened.set()
    first.join()
    second.join()
    assert told == {"helpful": 200, "calm": 200}
    assert list(operator.versions()) == ["helpful", "amusing", "calm"]


def test_the_end_of_the_server_and_a_deadline_give_a_load_up(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened, loads = LateLoader.measure_opening, threading.Event(), list[str]()

    def hold(loader: LateLoader, entry: RewardEntry) -> int:
        loads.append(entry.path)
        assert opened.wait(60)
        return real(loader, entry)

    monkeypatch.setattr(LateLoader, "measure_opening", hold)  # the first part of a load
    with operating(config) as operator:
        before = operator.versions()
        late = operator.client.post(
            "/v1/models/helpful/load", json={"path": "helpful-2"}, headers={"x-request-timeout-ms": "1500"}
        )
        assert (late.status_code, len(loads)) == (504, 1)
        told: list[tuple[int, str]] = []

        def load() -> None:
            reply = operator.post("helpful", "load", path="helpful-3")
            told.append((reply.status_code, reply.json()["error"]["code"]))

        thread = threading.Thread(target=load)
        thread.start()
        changes = operator.app.state.server.changes
        block_until(lambda: changes._turns._names == {"helpful"})
        operator.client.portal.call(changes.stop)  # type: ignore[union-attr]
        thread.join()
        assert told == [(503, "draining")]
        assert len(loads) == 1  # the second waited for the thread of the first, which still loads
        assert operator.versions() == before
        opened.set()
    assert len(loads) == 1


def test_a_shadow_is_compared_as_scipy_does_and_promoted(config: Path, operator: Operator) -> None:
    live, prompts = operator.versions()["helpful"], ["why?", "how so?", "what falls?", "when?"]
    begun = operator.post("helpful", "shadow", path="helpful-2", share=1)
    assert (begun.status_code, begun.json()["compared"]) == (200, 0)
    version = begun.json()["fingerprint"]
    items = [{"prompt": each, "candidates": ["the wind", "the lazy dog", "leaves fall " + each]} for each in prompts]
    old = operator.score(items=items, rewards=["helpful", "amusing"])
    assert old["fingerprint"]["helpful"] == live
    assert list(operator.versions()) == ["helpful", "amusing"]  # a shadow is not served

    def report() -> dict[str, Any]:
        found: dict[str, Any] = operator.client.get("/v1/models/helpful/shadow").json()
        return found

    block_until(lambda: report()["compared"] == 12)
    scrape = operator.client.get("/metrics").text
    (found,) = report()["comparisons"]
    assert operator.load("helpful", promote=True)["action"] == "promoted"
    assert operator.versions()["helpful"] == version
    assert operator.client.get("/v1/models/helpful/shadow").status_code == 404
    new = operator.score(items=items, rewards=["helpful"])

    def read(reply: dict[str, Any]) -> Any:
        return np.array([[each["scores"]["helpful"]["raw"] for each in item["candidates"]] for item in reply["data"]])

    ours, theirs = read(old), read(new)
    assert (found["unit"], found["texts"], found["pairs"]) == ("deviations", 12, 12)
    assert found["rank_correlation"] == pytest.approx(spearmanr(ours.ravel(), theirs.ravel()).statistic, abs=1e-9)
    assert found["mean_difference"] == pytest.approx((theirs - ours).mean(), abs=1e-5)
    assert found["largest_difference"] == pytest.approx(np.abs(theirs - ours).max(), abs=1e-5)
    agreed = [
        (a[i] > a[j]) == (b[i] > b[j]) for a, b in zip(ours, theirs, strict=True) for i in range(3) for j in range(i)
    ]
    assert found["pair_agreement"] == pytest.approx(np.mean(agreed))
    assert sample(scrape, "tureen_shadow_texts_total", model="helpful", outcome="compared") == 12
    assert sample(scrape, "tureen_shadow_pair_agreement", model="helpful") == found["pair_agreement"]
    assert "tureen_shadow_pair_agreement{" not in operator.client.get("/metrics").text  # it has ended


def test_a_promoted_checkpoint_is_not_loaded_again(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.load("whole", path="whole")
    assert operator.post("whole", "shadow", path="whole-2", share=1).status_code == 200
    monkeypatch.setattr(LateLoader, "load", lambda *_: pytest.fail("loaded again"))
    assert operator.load("whole", promote=True)["action"] == "promoted"
    monkeypatch.undo()
    lanes = [lane.name for lane in operator.app.state.server.engine.scorers]
    assert sorted(set(lanes)) == ["base-scores", "whole"]
    assert operator.raw("whole")
    assert operator.post("helpful", "shadow", path="helpful-2").status_code == 200
    ended = operator.client.request("DELETE", "/v1/models/helpful/shadow")
    assert (ended.status_code, json.loads(ended.text)["compared"]) == (200, 0)
    assert operator.client.request("DELETE", "/v1/models/helpful/shadow").status_code == 404


def test_rewards_of_a_root_follow_their_folders_and_keep_their_names(config: Path, tmp_path: Path) -> None:
    models = config.parent / "models"
    shutil.copytree(models / "calm", tmp_path / "calm")
    with operating(config, rewards_root=tmp_path) as operator:
        for name, body, code in (
            ("calm", {"path": "calm"}, "model_fixed"),
            ("new", {"path": "calm", "rename": True}, "name_taken"),
        ):
            refused = operator.post(name, "load", **body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, code), refused.text
        operator.load("whole", path="whole")
        shutil.copytree(models / "whole-2", tmp_path / "whole")
        served = operator.versions()["whole"]
        time.sleep(SCAN_SECONDS)  # a root is read at most once in this time
        assert operator.versions()["whole"] == served
        both = operator.score(rewards=["calm", "whole", "helpful"])
        assert both["fingerprint"].keys() == {"calm", "whole", "helpful"}
