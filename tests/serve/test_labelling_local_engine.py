"""Files labelled by an engine in this process: the server's own numbers, resumed, and refused where it must be."""

import json
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.artifacts import build, prove
from serve.labelling import ignore, inputs, item, outputs, plan, rows, write
from starlette.testclient import TestClient

from tureen.errors import Conflict, Unavailable, Unprocessable
from tureen.labelling.recipe import Recipe
from tureen.labelling.target_files import TargetFiles
from tureen_serve.app import create_app
from tureen_serve.labelling.labeller import Labeller, only_rewards
from tureen_serve.labelling.local_engine import label_locally
from tureen_serve.labelling.shards import find_shards
from tureen_serve.runtimes.load import LoadError
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.settings import RewardEntry, ServerLimits, Settings, load_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(build(tmp_path_factory.mktemp("artifacts")))


def test_labels_are_the_servers(settings: Settings, tmp_path: Path) -> None:
    items = [item(number) for number in range(5)]
    write(tmp_path / "in" / "a.jsonl", items)
    asked = {"preferences": {"helpful": 0.25, "amusing": 0.75}}
    label_locally(settings, outputs(tmp_path, "out"), plan(recipe=Recipe("full"), asked=asked), ignore)
    with TestClient(create_app(settings)) as client:
        assert any(client.get("/health/ready").status_code == 200 for _ in range(10_000))
        reply = client.post("/v1/preferences", json={"items": items, **asked}).json()
    found = rows(tmp_path / "out" / "a.jsonl")
    assert len(found) == len(reply["data"]) == 5
    for mine, theirs in zip(found, reply["data"], strict=True):
        assert [mine[name] for name in ("ranking", "chosen", "rejected", "tie")] == [
            theirs[name] for name in ("ranking", "chosen", "rejected", "tie")
        ]
        assert [mine["margin"], mine["probability"]] == pytest.approx(
            [theirs["margin"], theirs["probability"]], abs=1e-4
        )
    state = json.loads(TargetFiles(tmp_path / "out" / "a.jsonl").state.read_bytes())
    assert state["tally"]["fingerprint"] == reply["fingerprint"]
    assert state["tally"]["preferences"] == asked["preferences"]


def test_a_stuck_runtime_ends_it(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, run = threading.Event(), PackedScorer._run

    def wait(*given: Any) -> Any:
        """Only in the lane: the probes are scored before it starts."""
        return gate.wait() if threading.current_thread().name.startswith("lane") else run(*given)

    quick = settings.model_copy(update={"limits": settings.limits.model_copy(update={"stuck_seconds": 0.1})})
    write(tmp_path / "in" / "a.jsonl", [item(1)])
    try:
        with monkeypatch.context() as patch:
            patch.setattr(PackedScorer, "_run", wait)
            with pytest.raises(Unavailable, match=r"base-scores is stuck: a forward pass has run for \d"):
                label_locally(quick, outputs(tmp_path, "out"), plan(asked={"rewards": ["helpful"]}), ignore)
    finally:
        gate.set()


def test_every_shard_gets_its_rows_and_its_errors(settings: Settings, tmp_path: Path) -> None:
    found = inputs(tmp_path)
    seen: list[int] = []
    first, second = label_locally(settings, found, plan(), seen.append)
    assert (first.read, first.labelled, first.failed, second.read, second.failed) == (13, 10, 3, 13, 0)
    assert sum(seen) == 26
    assert [row["id"] for row in rows(found[0].target)] == [f"a.jsonl:{n}" for n in (1, 2, 3, 4, 5, 6, 7, 11, 12, 13)]
    assert [row["id"] for row in rows(found[1].target)] == [f"b.parquet:{n}" for n in range(1, 14)]
    failed = rows(tmp_path / "out" / "a.errors.jsonl")
    assert [row["line"] for row in failed] == [8, 9, 10]
    assert failed[2]["error"]["code"] == "context_length_exceeded"
    assert failed[2]["error"]["param"] == "candidates[0]"
    assert not (tmp_path / "out" / "b.errors.jsonl").exists()


def test_a_long_text_may_be_truncated_instead(settings: Settings, tmp_path: Path) -> None:
    (first, _) = label_locally(settings, inputs(tmp_path), plan(asked={"truncate": True}), ignore)
    assert (first.labelled, first.failed) == (11, 2)


def test_what_was_interrupted_goes_on_and_ends_the_same(settings: Settings, tmp_path: Path) -> None:
    found = inputs(tmp_path)
    undisturbed = outputs(tmp_path, "undisturbed")
    label_locally(settings, undisturbed, plan(), ignore)

    def die(count: int) -> None:
        seen.append(count)
        if sum(seen) >= 17:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        label_locally(settings, found, plan(), die)
    done = sum(seen)
    assert not found[1].target.exists()
    seen.clear()
    label_locally(settings, found, plan(), seen.append)
    assert seen[0] == 13
    assert sum(seen) == 26
    assert sum(seen[2:]) == 26 - done
    for mine, theirs in zip(found, undisturbed, strict=True):
        assert [row["id"] for row in rows(mine.target)] == [row["id"] for row in rows(theirs.target)]
        margins = ([row["margin"] for row in rows(each.target)] for each in (mine, theirs))
        assert next(margins) == pytest.approx(next(margins), abs=1e-4)


def test_all_pairs(settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [item(number) for number in range(40)])
    (tally,) = label_locally(settings, outputs(tmp_path, "out"), plan(recipe=Recipe("trl", "all"), size=4096), ignore)
    found = rows(tmp_path / "out" / "a.jsonl")
    assert len(found) == tally.rows == 3 * 40
    assert all(0 < row["probability"] < 1 for row in found)


def test_a_run_larger_than_the_servers_queue_waits_for_its_turn(settings: Settings, tmp_path: Path) -> None:
    small = settings.model_copy(update={"limits": ServerLimits(queue_tokens=1, batch_tokens=64)})
    write(tmp_path / "in" / "a.jsonl", [item(number) for number in range(12)])
    (tally,) = label_locally(small, outputs(tmp_path, "out"), plan(ahead=3), ignore)
    assert tally.labelled == 12


def test_policies_are_not_loaded(settings: Settings) -> None:
    assert settings.families
    assert only_rewards(settings).families == []
    with Labeller(settings, {}, Recipe()) as labeller:
        assert labeller([item(1)], None).fingerprint.keys() == {"helpful", "amusing"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"rewards": ["humor"]}, "unknown reward 'humor'; loaded: amusing, helpful"),
        ({"preferences": {"humor": 1.0}}, "humor"),
        ({"preferences": {"helpful": -1.0}}, "helpful"),
    ],
)
def test_what_cannot_be_asked_is_said(settings: Settings, tmp_path: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(Unprocessable, match=says):
        label_locally(settings, inputs(tmp_path), plan(asked=asked), ignore)


def test_another_model_does_not_go_on_with_what_one_has_begun(settings: Settings, tmp_path: Path) -> None:
    with Labeller(settings, {}, Recipe()) as labeller, pytest.raises(Conflict, match="helpful is loaded with"):
        labeller([item(1)], {"helpful": "another"})


def test_a_probe_that_differs_labels_nothing(tmp_path: Path) -> None:
    wrong = prove(tiny.reward(tmp_path / "helpful", tiny.base(tmp_path / "base"), "helpful", 1), off_by=0.5)
    settings = Settings(rewards=[RewardEntry(path=wrong.folder)], dtype="float32", device="cpu")
    with pytest.raises(Unavailable, match="helpful"):
        label_locally(settings, inputs(tmp_path), plan(), ignore)
    with pytest.raises(LoadError, match="neither tureen.json"):
        label_locally(Settings(rewards=[RewardEntry(path=tmp_path)]), inputs(tmp_path), plan(), ignore)


def test_nothing_is_loaded_for_shards_that_are_not_there(settings: Settings, tmp_path: Path) -> None:
    assert label_locally(settings, [], plan(), ignore) == []
    missing = find_shards([write(tmp_path / "in" / "a.jsonl", [item(1)])], tmp_path, ".parquet")
    missing[0].source.unlink()
    with pytest.raises(Unprocessable, match=r"cannot read .*a\.jsonl: No such file"):
        label_locally(settings, missing, plan(), ignore)


def test_closing_gives_up_what_is_being_labelled(settings: Settings) -> None:
    labeller = Labeller(settings, {}, Recipe())
    with ThreadPoolExecutor(2) as threads:
        many = [threads.submit(labeller, [item(number) for number in range(500)], None) for _ in range(2)]
        labeller([item(1)], None)
        labeller.close()
    for each in many:
        with pytest.raises((CancelledError, Unavailable)):  # the second, if it had not begun
            each.result()
    with pytest.raises(Unavailable, match="closed"):
        labeller([item(1)], None)
