"""``tureen-serve label``: label files without a server, in this process or on a Ray cluster."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from tureen import item_files
from tureen.commands.flags import (
    INTERRUPTED,
    FormOf,
    HowNormalised,
    Json,
    Preference,
    Renames,
    Truncate,
    drop_unset,
    parse_reading,
    parse_weighing,
)
from tureen.commands.label_flags import (
    Fail,
    Format,
    MinMargin,
    MinProbability,
    OnTies,
    Pairs,
    PairSeed,
    Restart,
    TieMargin,
    build_recipe,
    describe_tally,
    dump_tally,
)
from tureen.errors import TureenError
from tureen.labelling.journal import say_what_is_kept
from tureen.labelling.labelling_run import Plan
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import check_target
from tureen_core.plain.option_flags import name_flags, take_plain_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_serve.commands.artifact_flags import (
    ConfigFile,
    Device,
    Dtype,
    RewardFolders,
    RuntimeName,
    WithStarter,
    exit_with_error,
    read_artifacts,
)
from tureen_serve.commands.plain_flags import make_reward_entries
from tureen_serve.labelling.shards import Shard, find_shards
from tureen_serve.process_environment import secure_private_ray
from tureen_serve.settings import Settings, SettingsError, load_settings

ERR = Console(stderr=True)
FORM_FLAG = "--reward-form"  # here --form is the form of the rows
Run = Callable[..., list[Tally]]
Inputs = Annotated[
    list[Path],
    typer.Argument(exists=True, help="Files of items, folders with such files, or folders saved by `datasets`."),
]
FileType = Annotated[Literal["jsonl", "jsonl.gz", "parquet"], typer.Option(help="The type of the files with rows.")]
Objectives = Annotated[
    list[str] | None, typer.Option(help="A loaded reward to label by; all by default. May be repeated.")
]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs for each engine; 1 by default if the cluster has GPUs.")]


@take_plain_flags("tureen-serve", form=FORM_FLAG)
def label(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Label in this process, or with Ray.")] = "local",
    write: FileType = "jsonl",
    form: Format = "full",
    source_form: FormOf = "auto",
    renames: Renames = None,
    pairs: Pairs = "best-worst",
    ties: OnTies = "keep",
    tie_margin: TieMargin = 0.0,
    min_margin: MinMargin = 0.0,
    min_probability: MinProbability = 0.0,
    seed: PairSeed = 0,
    objective: Objectives = None,
    preference: Preference = None,
    normalize: HowNormalised = None,
    truncate: Truncate = False,
    fail: Fail = False,
    size: Annotated[int, typer.Option("--run", min=1, max=4096, help="Items to label and to store at once.")] = 64,
    restart: Restart = False,
    with_starter: WithStarter = False,
    reward: RewardFolders = None,
    config: ConfigFile = None,
    runtime: RuntimeName = None,
    dtype: Dtype = None,
    device: Device = None,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster, or auto; a private Ray by default.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="The number of engines on Ray.")] = 1,
    gpus: Gpus = None,
    as_json: Json = False,
    plain: PlainOptions = NO_OPTIONS,
) -> None:
    """Label files of prompts with candidates, without a server. The same command continues an interrupted one.

    For each input file, the output folder gets three files: the rows, the items that could not be labelled, and the
    models, weights and counts. Exit code 1 means that some items could not be labelled, or that nothing could be run.
    """
    how = build_recipe(form, pairs, ties, tie_margin, min_margin, min_probability, seed)
    asked = drop_unset(rewards=objective, **parse_weighing(preference, normalize), truncate=truncate or None)
    plan = Plan(how, asked, not fail, size, reading=parse_reading(source_form, renames))
    found: list[Shard] = []
    try:
        entries = make_reward_entries(list(map(_make_absolute, reward or [])), plain, name_flags(form=FORM_FLAG))
        artifacts = read_artifacts(with_starter, entries)
        settings = _require_rewards(load_settings(config, runtime=runtime, dtype=dtype, device=device, **artifacts))
        found = _prepare_shards(inputs, out, write)
        run = _import_ray_run(out, ray_address, actors, gpus) if engine == "ray" else _import_local_run()
        work = partial(run, settings, found, plan, restart=restart)
        # Ray shows progress bars of its own
        tallies = _run_with_progress(work, found, quiet=as_json or engine == "ray" or not ERR.is_terminal)
    except SettingsError as error:
        exit_with_error(error, 2)
    except (TureenError, OSError, RuntimeError) as error:  # a LoadError is a RuntimeError
        exit_with_error(error, 1, rename={"--form": FORM_FLAG})
    except KeyboardInterrupt:
        typer.echo(f"tureen-serve: interrupted; {_say_what_stays(engine, found, out)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(found, tallies, as_json)
    raise typer.Exit(1 if any(tally.failed for tally in tallies) else 0)


def _make_absolute(source: str) -> str:
    """Make the path of a folder absolute, since Ray's workers run elsewhere."""
    return str(Path(source).expanduser().resolve()) if Path(source).expanduser().exists() else source


def _require_rewards(settings: Settings) -> Settings:
    if not settings.rewards and settings.rewards_root is None:
        raise SettingsError("no reward models are named: give --starter, --config FILE or --reward")
    return settings


def _prepare_shards(inputs: Sequence[Path], out: Path, write: str) -> list[Shard]:
    """Find the files to label, and make the output folder.

    Raises:
        TureenError: there are no files, or all of them are empty.
    """
    found = find_shards(inputs, out, f".{write}")
    check_target(found[0].target)
    if all(next(item_files.iterate_items(shard.source), None) is None for shard in found):
        raise item_files.make_empty_file_error(found[0].source)
    out.mkdir(parents=True, exist_ok=True)
    return list(found)


def _run_with_progress(work: Run, found: Sequence[Shard], quiet: bool) -> list[Tally]:
    with Progress(console=ERR, disable=quiet, transient=True) as progress:
        total = None if quiet else sum(item_files.count_items(each.source) for each in found)
        task = progress.add_task("labelling", total=total)
        return work(seen=lambda count: progress.advance(task, count))


def _import_local_run() -> Run:
    from tureen_serve.labelling import local_engine  # imports torch, which --help does not need

    return local_engine.label_locally


def _import_ray_run(folder: Path, address: str | None, actors: int, gpus: float | None) -> Run:
    if find_spec("ray") is None:
        raise SettingsError("Ray is not installed: run pip install 'tureen[ray]', or use --engine local")
    if address is None:
        secure_private_ray()
    from tureen_serve.labelling import ray_pipeline  # Ray reads the environment at its import

    return partial(ray_pipeline.label_on_ray, folder=folder, cluster=ray_pipeline.Cluster(address, actors, gpus))


def _say_what_stays(engine: str, found: Sequence[Shard], out: Path) -> str:
    if engine != "ray":
        return say_what_is_kept(each.target for each in found)
    from tureen_serve.labelling import ray_pipeline

    return f"{ray_pipeline.count_labels(out)} items are labelled and kept; give the same command again to continue"


def _show(found: Sequence[Shard], tallies: Sequence[Tally], as_json: bool) -> None:
    for shard, tally in zip(found, tallies, strict=True):
        if as_json:
            typer.echo(json.dumps({**dump_tally(tally, shard.target), "source": str(shard.source)}))
        else:
            typer.echo(describe_tally(tally, shard.target))
