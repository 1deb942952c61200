"""The same labels by a real Ray on this machine: equal to the local engine's, and resumed after a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset
from pyarrow.parquet import read_table, write_table
from serve.artifacts import build
from serve.labelling import BAD, ignore, inputs, item, outputs, plan, rows, write
from waiting import block_until

from tureen.errors import Conflict
from tureen.labelling.recipe import Recipe
from tureen.labelling.target_files import TargetFiles
from tureen_serve.labelling import local_engine
from tureen_serve.process_environment import secure_private_ray, stay_offline
from tureen_serve.runtimes.load import LoadError
from tureen_serve.settings import RewardEntry, Settings, load_settings

# Ray Data reads its own deprecated options when it is imported and when a context is copied
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning:ray")]


@pytest.fixture(scope="module")
def ray_data() -> Iterator[Any]:
    """The module, and a Ray that all tests share: to start one takes seconds."""
    stay_offline()
    secure_private_ray()
    ray = pytest.importorskip("ray")

    from tureen_serve.labelling import ray_pipeline

    ray_pipeline.start_ray(ray_pipeline.Cluster())
    yield ray_pipeline
    ray.shutdown()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


def same(mine: Path, theirs: Path) -> None:
    """Equal rows, their numbers within what another batch makes of them."""
    for one, other in zip(rows(mine), rows(theirs), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == (pytest.approx(other[name], abs=1e-4) if isinstance(value, float) else other[name])


def test_rows_are_those_of_the_local_engine(ray_data: Any, settings: Settings, tmp_path: Path) -> None:
    found, expected = inputs(tmp_path), outputs(tmp_path, "local")
    how = plan(recipe=Recipe("trl", "best-each"), asked={"preferences": {"helpful": 0.3, "amusing": 0.7}})
    seen: list[int] = []
    told = ray_data.label_on_ray(settings, found, how, seen.append, folder=tmp_path / "out")
    assert told == local_engine.label_locally(settings, expected, how, ignore)
    assert (told[0].labelled, told[0].failed, sum(seen)) == (10, 3, 26)
    for mine, theirs in zip(found, expected, strict=True):
        same(mine.target, theirs.target)
    errors = [rows(tmp_path / name / "a.errors.jsonl") for name in ("out", "local")]
    assert errors[0] == errors[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (tmp_path / "local").iterdir()
    )
    seen.clear()
    assert ray_data.label_on_ray(settings, found, how, seen.append, folder=tmp_path / "out") == told
    assert seen == [13, 13]


def test_a_saved_dataset_is_labelled(ray_data: Any, settings: Settings, tmp_path: Path) -> None:
    Dataset.from_list([item(1), item(2)]).save_to_disk(tmp_path / "in")
    found, expected = outputs(tmp_path, "out"), outputs(tmp_path, "local")
    told = ray_data.label_on_ray(settings, found, plan(), ignore, folder=tmp_path / "out")
    assert told == local_engine.label_locally(settings, expected, plan(), ignore)
    assert [row["id"] for row in rows(found[0].target)] == ["in:1", "in:2"]
    same(found[0].target, expected[0].target)


def test_failures_stand_in_a_column_and_other_models_do_not_go_on(
    ray_data: Any, settings: Settings, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.jsonl", [item(1), *BAD])
    (shard,) = outputs(tmp_path, "out")
    kept = ray_data.labels_folder(tmp_path / "out", [plan().work(shard.source)], plan())
    ray_data.run_pipeline(settings, [shard], plan(), kept, ray_data.Cluster())
    table = read_table(kept / "rows").sort_by("line").to_pylist()
    assert [(row["id"], row["line"], row["label"] is None) for row in table] == [
        ("a.jsonl:1", 1, False),
        ("a.jsonl:2", 2, True),
        ("a.jsonl:3", 3, True),
        ("a.jsonl:4", 4, False),
    ]
    assert table[0]["error"] is None
    says = ["this is not JSON", "at least 2 items", "tokens and this model reads"]
    assert all(word in row["error"] for word, row in zip(says, table[1:], strict=True))

    for path in (kept / "checkpoint").iterdir():
        path.unlink()
    helpful, amusing = (entry.path for entry in settings.rewards)
    swapped = [RewardEntry(path=amusing, name="helpful"), RewardEntry(path=helpful, name="amusing")]
    with pytest.raises(Conflict, match="is loaded with the fingerprint"):
        ray_data.label_on_ray(
            settings.model_copy(update={"rewards": swapped}), [shard], plan(), ignore, folder=tmp_path / "out"
        )
    assert rows(TargetFiles(shard.target).rows) == []


def test_what_cannot_be_loaded_is_said_as_ever(ray_data: Any, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [item(1)])
    empty = Settings(rewards=[RewardEntry(path=tmp_path)])
    with pytest.raises(LoadError, match=r"neither tureen\.json"):
        ray_data.label_on_ray(empty, outputs(tmp_path, "out"), plan(), ignore, folder=tmp_path / "out")


def test_after_a_kill_only_what_is_missing_is_labelled(
    ray_data: Any, config: Path, settings: Settings, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.jsonl", [item(number) for number in range(160)])
    (shard,) = outputs(tmp_path, "out")
    options = ["label", str(shard.source), "--out", str(tmp_path / "out"), "--config", str(config), "--engine", "ray"]
    options += ["--format", "trl", "--run", "2", "--ray-address", sys.modules["ray"].get_runtime_context().gcs_address]
    process = subprocess.Popen(
        [sys.executable, "-m", "tureen_serve", *options],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    committed = wait_for_a_commit(process, tmp_path / "out" / ".labels")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not shard.target.exists()
    (kept,) = (tmp_path / "out" / ".labels").iterdir()
    marked = mark(kept / "rows", committed.name.removesuffix(".parquet"))
    assert 0 < len(marked) < 160
    write_table(pyarrow.table({"id": ["a.jsonl:1"]}), kept / "checkpoint" / "torn.pending.parquet")
    (kept / "rows" / "torn-0.parquet").write_bytes(b"PAR1")
    (tally,) = ray_data.label_on_ray(settings, [shard], plan(), ignore, folder=tmp_path / "out")
    found = rows(shard.target)
    assert [row["id"] for row in found] == [f"a.jsonl:{number}" for number in range(1, 161)]
    assert {row["id"] for row in found if row["probability"] == 0.123} == marked
    assert (tally.read, tally.rows) == (160, 160)
    assert not (tmp_path / "out" / ".labels").exists()


def wait_for_a_commit(process: subprocess.Popen[bytes], folder: Path) -> Path:
    def committed() -> list[Path]:
        return [path for path in folder.glob("*/checkpoint/*.parquet") if ".pending" not in path.name]

    block_until(lambda: committed() or process.poll() is not None, 250)
    assert process.poll() is None, "it ended before it committed anything"
    return committed()[0]


def mark(rows_folder: Path, name: str) -> set[str]:
    """Change the labels of one committed file, so that it shows where they are used; returns their ids."""
    (path,) = rows_folder.glob(f"{name}*.parquet")
    table = read_table(path)
    changed = [{**json.loads(text), "probability": 0.123} for text in table.column("label").to_pylist()]
    column = pyarrow.array([json.dumps(label) for label in changed])
    write_table(table.set_column(table.schema.get_field_index("label"), "label", column), path)
    return set(table.column("id").to_pylist())
