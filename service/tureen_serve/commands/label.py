"""``tureen-serve label``: files labelled in process, on this machine or on a Ray cluster."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress

from tureen import item_files
from tureen.commands.flags import (
    INTERRUPTED,
    FormOf,
    Preference,
    Renames,
    Truncate,
    drop_unset,
    parse_reading,
    parse_weights,
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
from tureen.labelling.labelling_run import Plan
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import check_target
from tureen_serve.commands.artifact_flags import read_artifacts
from tureen_serve.labelling.shards import Shard, find_shards
from tureen_serve.process_environment import secure_private_ray
from tureen_serve.settings import Settings, SettingsError, load_settings

ERR = Console(stderr=True)
Run = Callable[..., list[Tally]]


def label(
    inputs: Annotated[list[Path], typer.Argument(exists=True, help="files of items, or folders of them")],
    out: Annotated[Path, typer.Option(help="the folder to write to")],
    engine: Annotated[Literal["local", "ray"], typer.Option(help="this process, or a pipeline on Ray")] = "local",
    write: Annotated[
        Literal["jsonl", "jsonl.gz", "parquet"], typer.Option(help="how the rows of each file are written")
    ] = "jsonl",
    form: Format = "full",
    source_form: FormOf = "auto",
    renames: Renames = None,
    pairs: Pairs = "best-worst",
    ties: OnTies = "keep",
    tie_margin: TieMargin = 0.0,
    min_margin: MinMargin = 0.0,
    min_probability: MinProbability = 0.0,
    seed: PairSeed = 0,
    objective: Annotated[list[str] | None, typer.Option(help="a loaded reward to label by; may be repeated")] = None,
    preference: Preference = None,
    truncate: Truncate = False,
    fail: Fail = False,
    size: Annotated[int, typer.Option("--run", min=1, max=4096, help="items that are labelled and kept at once")] = 64,
    restart: Restart = False,
    with_starter: Annotated[bool, typer.Option("--starter", help="the reward models inside the package")] = False,
    reward: Annotated[list[Path] | None, typer.Option(help="a reward artifact's folder; may be repeated")] = None,
    config: Annotated[Path | None, typer.Option(help="a YAML file of artifacts and settings")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, transformers or vllm")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = None,
    ray_address: Annotated[str | None, typer.Option(help="a Ray cluster, or auto; a private Ray by default")] = None,
    actors: Annotated[int, typer.Option(min=1, help="engines at once on Ray")] = 1,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs for each of them; 1 where there are any")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Label files of prompts with candidates, without a server; what was done is not done again after a crash.

    Each input file gets a file of rows in the output folder, another of what could not be labelled, and a third that
    says by which models, with which weights and how many. Exit code 1 says that some items could not be labelled, or
    that nothing could.
    """
    how = build_recipe(form, pairs, ties, tie_margin, min_margin, min_probability, seed)
    asked = drop_unset(rewards=objective, preferences=parse_weights(preference), truncate=truncate or None)
    plan = Plan(how, asked, not fail, size, reading=parse_reading(source_form, renames))
    flags = {"runtime": runtime, "dtype": dtype, "device": device}
    try:
        given = read_artifacts(with_starter, [each.resolve() for each in reward or []], [])
        settings = _with_rewards(load_settings(config, **flags, **given))
        found = _found(inputs, out, write)
        run = _on_ray(out, ray_address, actors, gpus) if engine == "ray" else _here()
        work = partial(run, settings, found, plan, restart=restart)
        # Ray has bars of its own
        tallies = _watched(work, found, quiet=as_json or engine == "ray" or not ERR.is_terminal)
    except SettingsError as error:
        _refuse(error, 2)
    except (TureenError, OSError, RuntimeError) as error:  # LoadError among the last
        _refuse(error, 1)
    except KeyboardInterrupt:
        typer.echo(f"tureen-serve: what is done stands in {out}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(found, tallies, as_json)
    raise typer.Exit(1 if any(tally.failed for tally in tallies) else 0)


def _with_rewards(settings: Settings) -> Settings:
    if not settings.rewards:
        raise SettingsError("there is nothing to label by: give --starter, --config FILE or --reward")
    return settings


def _found(inputs: Sequence[Path], out: Path, write: str) -> list[Shard]:
    """The files to label, of which one at least holds an item, and their places in the output folder, which is made."""
    found = find_shards(inputs, out, f".{write}")
    check_target(found[0].target)
    if all(next(item_files.iterate_items(shard.source), None) is None for shard in found):
        raise item_files.make_empty_file_error(found[0].source)
    out.mkdir(parents=True, exist_ok=True)
    return list(found)


def _watched(work: Run, found: Sequence[Shard], quiet: bool) -> list[Tally]:
    with Progress(console=ERR, disable=quiet, transient=True) as progress:
        total = None if quiet else sum(item_files.count_items(each.source) for each in found)
        task = progress.add_task("labelling", total=total)
        return work(seen=lambda count: progress.advance(task, count))


def _here() -> Run:
    from tureen_serve.labelling import local_engine  # torch takes seconds, and --help none

    return local_engine.label_locally


def _on_ray(folder: Path, address: str | None, actors: int, gpus: float | None) -> Run:
    if find_spec("ray") is None:
        raise SettingsError("Ray is not installed: pip install 'tureen[ray]', or take --engine local")
    if address is None:
        secure_private_ray()
    from tureen_serve.labelling import ray_pipeline  # reads the environment when it is imported

    return partial(ray_pipeline.label_on_ray, folder=folder, cluster=ray_pipeline.Cluster(address, actors, gpus))


def _show(found: Sequence[Shard], tallies: Sequence[Tally], as_json: bool) -> None:
    for shard, tally in zip(found, tallies, strict=True):
        if as_json:
            typer.echo(json.dumps({**dump_tally(tally, shard.target), "source": str(shard.source)}))
        else:
            typer.echo(describe_tally(tally, shard.target))


def _refuse(error: Exception, status: int) -> NoReturn:
    typer.echo(f"tureen-serve: {error}", err=True)
    raise typer.Exit(status) from error
