"""Label shards with Ray Data: many processes of a cluster read, label and store them.

Each actor has an engine as ``--engine local`` has. The pipeline writes one row for each item, with its label or error,
as Parquet files under ``.labels`` in the output folder. Ray Data's row checkpoints are beside them: the id of a row is
committed together with the file of the row, and a restarted pipeline skips committed rows. When all items are done,
each shard's target is written from these rows, by the same code and in the same format as with ``--engine local``.

All machines of the cluster must reach the folder and the inputs under the same paths.
"""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import ray
from pyarrow.dataset import dataset, field
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from tureen.errors import ServerFault, TureenError
from tureen.item_forms import DEFAULT
from tureen.labelling import items, labelling_run
from tureen.labelling.journal import Journal
from tureen.labelling.labelling_run import Plan
from tureen.labelling.tally import Tally
from tureen.wire import Label, PreferencesReply, Usage
from tureen_serve.labelling.ray_stages import SCHEMA, Actor, Lines
from tureen_serve.labelling.shards import Shard
from tureen_serve.runtimes.load import LoadError
from tureen_serve.settings import Settings

Work = dict[str, Any]
LABELS = ".labels"
RUNS_A_BATCH = 4  # runs that an actor gets at once
RUNS_A_FILE = 4  # runs in one Parquet file, at least; a break loses what is in no file yet
OBJECT_STORE_BYTES = 2**28
CHECKPOINT_BYTES = 2**28
TARGET_LINES = 4096  # lines of a target that are written at once


@dataclass(frozen=True)
class Cluster:
    """Where the pipeline runs.

    Attributes:
        address: of a Ray cluster, or ``auto``; None starts a private Ray on this machine and stops it afterwards.
        actors: the number of engines.
        gpus: GPUs for each engine; by default 1 if the cluster has GPUs and the device is not ``cpu``, else 0.
    """

    address: str | None = None
    actors: int = 1
    gpus: float | None = None


def label_on_ray(
    settings: Settings,
    shards: Sequence[Shard],
    plan: Plan,
    seen: Callable[[int], None],
    *,
    folder: Path,
    cluster: Cluster = Cluster(),
    restart: bool = False,
) -> list[Tally]:
    """Label all shards. Items that an earlier call has labelled are skipped.

    Args:
        plan: what to ask, and how to write the rows.
        seen: called with the number of items that were done since its last call.
        folder: for the labels until all are done; all machines of the cluster must reach it.
        restart: label everything again.

    Returns:
        The tally of each shard.

    Raises:
        LoadError, TureenError, OSError: as :func:`tureen_serve.labelling.local_engine.label_locally`.
        ServerFault: the pipeline failed. The same call continues where it stopped.
    """
    folder = folder.resolve()
    if restart:
        shutil.rmtree(folder / LABELS, ignore_errors=True)
    works = [plan.work(each.source) for each in shards]
    done = [_is_done(*each, restart) for each in zip(shards, works, strict=True)]
    kept = labels_folder(folder, works, plan)
    if not all(done):
        left = [shard for shard, is_done in zip(shards, done, strict=True) if not is_done]
        with _ray(cluster):
            run_pipeline(settings, left, plan, kept, cluster)
    tallies = [_finish(*each, plan, kept / "rows", seen) for each in zip(shards, works, strict=True)]
    shutil.rmtree(kept, ignore_errors=True)
    with suppress(OSError):
        kept.parent.rmdir()
    return tallies


def _is_done(shard: Shard, work: Work, restart: bool) -> bool:
    with closing(Journal(shard.target, work, restart=restart)) as journal:
        return journal.complete


def labels_folder(folder: Path, works: Sequence[Work], plan: Plan) -> Path:
    """Return the folder of the labels of this work. It does not depend on the format of the rows."""
    sources = [work["source"] for work in works]
    parts = [sources, dict(plan.asked or {}), plan.recipe.matrix, plan.recipe.tie_margin]
    key = json.dumps([*parts, plan.reading.describe()] if plan.reading != DEFAULT else parts, sort_keys=True)
    return folder / LABELS / hashlib.sha256(key.encode()).hexdigest()[:16]


def count_labels(folder: Path) -> int:
    """Count the items whose labels are in whole files, of all works in an output folder."""
    found = 0
    for path in (folder / LABELS).glob("*/rows/*.parquet"):
        with suppress(pyarrow.ArrowInvalid):  # an incomplete file of a killed process
            found += pyarrow.parquet.read_metadata(path).num_rows
    return found


@contextmanager
def _ray(cluster: Cluster) -> Iterator[None]:
    """Connect to Ray, unless the caller has connected already. Errors of our own code are raised as they are."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with ExitStack() as ours:
        if not ray.is_initialized():
            start_ray(cluster)
            ours.callback(ray.shutdown)
        try:
            yield
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, TureenError | LoadError):
                raise cause from None
            message = f"the Ray pipeline failed: {cause or error}; run the same command again to continue"
            raise ServerFault(message) from error


def start_ray(cluster: Cluster) -> None:
    """Connect to the cluster, or start a private Ray."""
    quiet = {"configure_logging": False, "log_to_driver": False}
    if cluster.address:
        ray.init(cluster.address, **quiet)
        return
    # a CPU is a slot for a task: one for each actor, and one each to read, to filter and to write
    ray.init(num_cpus=cluster.actors + 3, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


def run_pipeline(settings: Settings, shards: Sequence[Shard], plan: Plan, kept: Path, cluster: Cluster) -> None:
    """Label the items of the shards that have no label in the folder ``kept`` yet, and store their labels there."""
    kept.mkdir(parents=True, exist_ok=True)
    with _checkpoints(kept / "checkpoint"):
        rows = ray.data.read_datasource(
            Lines([(each.target.name, each.source.resolve()) for each in shards], plan.reading)
        )
        labels = rows.map_batches(
            Actor,
            fn_constructor_args=(settings, plan, read_fingerprint(kept / "rows")),
            batch_size=plan.run * RUNS_A_BATCH,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=cluster.actors),
            num_cpus=1,
            num_gpus=_gpus(cluster, settings),
        )
        labels.write_parquet(str(kept / "rows"), min_rows_per_file=plan.run * RUNS_A_FILE)


@contextmanager
def _checkpoints(folder: Path) -> Iterator[None]:
    """Turn on Ray's checkpoints, so that a pipeline continues an interrupted one. The setting is undone at the end."""
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.raise_original_map_exception = True
    checkpoint = CheckpointConfig("id", str(folder), delete_checkpoint_on_success=False)
    checkpoint.checkpoint_actor_memory_bytes = CHECKPOINT_BYTES
    context.checkpoint_config = checkpoint
    try:
        yield
    finally:
        context.checkpoint_config = None


def _gpus(cluster: Cluster, settings: Settings) -> float:
    if cluster.gpus is not None:
        return cluster.gpus
    return 1.0 if settings.device != "cpu" and ray.cluster_resources().get("GPU") else 0.0


def read_fingerprint(rows: Path) -> dict[str, str]:
    """Read the fingerprints of the rewards that made the existing labels, so that no other rewards continue them."""
    for path in rows.glob("*.parquet"):
        try:
            found = pyarrow.parquet.read_table(path, columns=["models"]).column(0).to_pylist()
        except pyarrow.ArrowInvalid:  # an incomplete file of a killed process; the pipeline removes it
            continue
        for models in filter(None, found):
            return dict(json.loads(models)["fingerprint"])
    return {}


def _finish(shard: Shard, work: Work, plan: Plan, rows: Path, seen: Callable[[int], None]) -> Tally:
    """Write the target of a shard from its labels, as ``labelling_run.label_items`` writes it from replies."""
    journal = Journal(shard.target, work)
    seen(journal.tally.read)
    if journal.complete:
        return journal.tally
    with closing(journal):
        labels = _read_labels(shard, rows)
        left = islice(items.read_items(shard.source, plan.reading), journal.tally.read, None)
        for lines in labelling_run.split_into_runs(left, TARGET_LINES):
            settled = labelling_run.settle_run(lines, _reply(lines, labels), plan, journal.tally)
            journal.commit(settled.rows, settled.errors, settled.tally)
            seen(len(lines))
        journal.finish()
    return journal.tally


def _read_labels(shard: Shard, rows: Path) -> dict[int, tuple[str, str]]:
    """Read the labels: line number → (label, models), both as JSON."""
    kept = dataset(rows, format="parquet", schema=SCHEMA)
    table = kept.to_table(["line", "label", "models"], filter=field("shard") == shard.target.name)
    return {row["line"]: (row["label"], row["models"]) for row in table.to_pylist() if row["label"] is not None}


def _reply(lines: Sequence[items.Line], labels: dict[int, tuple[str, str]]) -> PreferencesReply | None:
    """Build the reply that a server would have given for these lines."""
    asked = [line for line in lines if line.item is not None]
    missing = [line.place for line in asked if line.number not in labels]
    if missing:
        message = f"{len(missing)} items have no label, the first is {missing[0]}"
        raise ServerFault(f"{message}; run the same command again to label them")
    if not asked:
        return None
    found = [Label.model_validate_json(labels[line.number][0]) for line in asked]
    read = sum(candidate.tokens for each in found for candidate in each.candidates)
    models = {labels[line.number][1] for line in asked}
    if len(models) > 1:
        raise ServerFault("the labels come from different reward models; delete the folder `.labels` and label again")
    return PreferencesReply(data=found, usage=Usage(prompt_tokens=read, total_tokens=read), **json.loads(models.pop()))
