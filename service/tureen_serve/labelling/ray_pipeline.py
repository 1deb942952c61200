"""The same labels by Ray Data: shards are read, labelled and kept by as many processes as a cluster has room for.

Each actor holds the engine that ``--engine local`` holds. The pipeline writes one row an item, its label or its error,
as Parquet under ``.labels`` in the output folder, with Ray Data's row checkpoints beside it: a row's id is committed
with the file that holds it, and a pipeline that is started again leaves out the rows whose ids it finds. Once all
items are there, each shard's target is written from them, by the code and into the files of ``--engine local``.

Folder and inputs must be reachable from all machines of the cluster, under the same paths.
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
BATCH, FILE = 4, 16  # runs that an actor is given at once, and that are kept in one file at least
OBJECTS = 2**28
FILTER = 2**28
FINISHED = 4096  # lines that are written at once in the end


@dataclass(frozen=True)
class Cluster:
    """Where the pipeline runs.

    Attributes:
        address: of a Ray cluster, or ``auto``; None starts a private Ray on this machine and ends it afterwards.
        actors: engines at once.
        gpus: what one of them needs; by default 1 where the cluster has any and the device is not ``cpu``.
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
    """Write every shard's rows; what an earlier call has done is not done again.

    Args:
        folder: where the labels stand until all are there, reachable from all machines of the cluster.

    Raises:
        LoadError, TureenError, OSError: as :func:`tureen_serve.labelling.local_engine.label_locally`.
        ServerFault: the pipeline failed; the same call goes on where it stopped.
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
    """Where the labels of this work stand; rows in another form are made from the same labels."""
    sources = [work["source"] for work in works]
    told = [sources, dict(plan.asked or {}), plan.recipe.matrix, plan.recipe.tie_margin]
    said = json.dumps([*told, plan.reading.describe()] if plan.reading != DEFAULT else told, sort_keys=True)
    return folder / LABELS / hashlib.sha256(said.encode()).hexdigest()[:16]


# --------------------------------------------------------------------------- the pipeline


@contextmanager
def _ray(cluster: Cluster) -> Iterator[None]:
    """A connection, the caller's own if there is one; errors of our own code come out of it as they were raised."""
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
            raise ServerFault(f"the Ray pipeline failed, and goes on when started again: {cause or error}") from error


def start_ray(cluster: Cluster) -> None:
    """Join the cluster, or start a private Ray."""
    quiet = {"configure_logging": False, "log_to_driver": False}
    if cluster.address:
        ray.init(cluster.address, **quiet)
        return
    # CPUs are places for tasks here: the actors', and one each to read, to leave out and to write
    ray.init(num_cpus=cluster.actors + 3, include_dashboard=False, object_store_memory=OBJECTS, **quiet)


def run_pipeline(settings: Settings, shards: Sequence[Shard], plan: Plan, kept: Path, cluster: Cluster) -> None:
    """Label the items of the shards that have no label in ``kept`` yet, and keep them there."""
    kept.mkdir(parents=True, exist_ok=True)
    with _checkpoints(kept / "checkpoint"):
        rows = ray.data.read_datasource(
            Lines([(each.target.name, each.source.resolve()) for each in shards], plan.reading)
        )
        labels = rows.map_batches(
            Actor,
            fn_constructor_args=(settings, plan, read_fingerprint(kept / "rows")),
            batch_size=plan.run * BATCH,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=cluster.actors),
            num_cpus=1,
            num_gpus=_gpus(cluster, settings),
        )
        labels.write_parquet(str(kept / "rows"), min_rows_per_file=plan.run * FILE)


@contextmanager
def _checkpoints(folder: Path) -> Iterator[None]:
    """The settings of a pipeline that goes on where one before it stopped; they are the process's, so they go again."""
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.raise_original_map_exception = True
    checkpoint = CheckpointConfig("id", str(folder), delete_checkpoint_on_success=False)
    checkpoint.checkpoint_actor_memory_bytes = FILTER
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
    """The reward models that labelled what is there already, so that no others go on."""
    for path in rows.glob("*.parquet"):
        try:
            found = pyarrow.parquet.read_table(path, columns=["models"]).column(0).to_pylist()
        except pyarrow.ArrowInvalid:  # torn by a kill; the pipeline removes it, as it was never committed
            continue
        for said in filter(None, found):
            return dict(json.loads(said)["fingerprint"])
    return {}


# --------------------------------------------------------------------------- from labels to targets


def _finish(shard: Shard, work: Work, plan: Plan, rows: Path, seen: Callable[[int], None]) -> Tally:
    """Write a shard's target from its labels, as ``labelling_run.label`` writes it from replies."""
    journal = Journal(shard.target, work)
    seen(journal.tally.read)
    if journal.complete:
        return journal.tally
    with closing(journal):
        labels = _read_labels(shard, rows)
        left = islice(items.read_items(shard.source, plan.reading), journal.tally.read, None)
        for lines in labelling_run.split_into_runs(left, FINISHED):
            settled = labelling_run.settle_run(lines, _reply(lines, labels), plan, journal.tally)
            journal.commit(settled.rows, settled.errors, settled.tally)
            seen(len(lines))
        journal.finish()
    return journal.tally


def _read_labels(shard: Shard, rows: Path) -> dict[int, tuple[str, str]]:
    """Each labelled line's label and models, as JSON."""
    kept = dataset(rows, format="parquet", schema=SCHEMA)
    table = kept.to_table(["line", "label", "models"], filter=field("shard") == shard.target.name)
    return {row["line"]: (row["label"], row["models"]) for row in table.to_pylist() if row["label"] is not None}


def _reply(lines: Sequence[items.Line], labels: dict[int, tuple[str, str]]) -> PreferencesReply | None:
    """What a server would have answered for these lines."""
    asked = [line for line in lines if line.item is not None]
    missing = [line.place for line in asked if line.number not in labels]
    if missing:
        raise ServerFault(f"{missing[0]} has no label ({len(missing)} such); start again, and the rest is labelled")
    if not asked:
        return None
    found = [Label.model_validate_json(labels[line.number][0]) for line in asked]
    read = sum(candidate.tokens for each in found for candidate in each.candidates)
    models = {labels[line.number][1] for line in asked}
    if len(models) > 1:
        raise ServerFault("the labels come from different reward models; remove `.labels` and label again")
    return PreferencesReply(data=found, usage=Usage(prompt_tokens=read, total_tokens=read), **json.loads(models.pop()))
