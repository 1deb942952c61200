"""``tureen bench``: put a load on a server, and show its goodput and latencies."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from tureen import item_files
from tureen.bench.loops import Bounds, run_load
from tureen.bench.plot import plot_bench, require_matplotlib
from tureen.bench.trial import Load, Trial, summarise_trials
from tureen.bench.workloads import Purpose, Texts, Workload, make_workload
from tureen.commands.bench_flags import (
    BenchSeed,
    Candidates,
    Concurrencies,
    Plot,
    Rates,
    Requests,
    Seconds,
    Timeout,
    To,
    Within,
    Words,
)
from tureen.commands.flags import (
    FormOf,
    ItemsFile,
    Json,
    MaxTokens,
    Model,
    Preference,
    Renames,
    Reward,
    Truncate,
    Url,
    drop_unset,
    err,
    make_console,
    open_client,
    parse_reading,
    parse_weights,
)

SHORT = 16  # tokens of an answer by default
Found = list[tuple[Load, list[Trial]]]
LATE = 0.01  # seconds of this command's own lateness that are worth a word
COLUMNS = ("load", "sent/s", "goodput/s", "p50 ms", "p90", "p99", "p99.9", "max", "refused", "errors")


def bench_server(
    file: Annotated[Path | None, ItemsFile] = None,
    to: To = "score",
    rate: Rates = None,
    concurrency: Concurrencies = None,
    seconds: Seconds = 10.0,
    requests: Requests = 100_000,
    timeout: Timeout = 30.0,
    within: Within = None,
    words: Words = 120,
    candidates: Candidates = 1,
    form: FormOf = "auto",
    renames: Renames = None,
    reward: Reward = None,
    preference: Preference = None,
    truncate: Truncate = False,
    model: Model = None,
    max_tokens: MaxTokens = None,
    seed: BenchSeed = 0,
    plot: Plot = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Measure a server under load: goodput, latencies and refusals.

    An open loop sends by the clock, whatever the server does, and a latency counts from when the request was due. In a
    closed loop a caller waits for its reply before it sends again, so a stall delays few requests; the latencies are
    corrected for this as HdrHistogram does, with the median as the expected interval. Nothing is sent twice.

    Items come from a file, or are built-in texts of all lengths, of which no two are equal. A file's items are sent
    again when all have been; the server may remember them.
    """
    loads = _choose_loads(rate, concurrency)
    options = _choose_options(to, reward, preference, truncate, model, max_tokens)
    bounds = Bounds(seconds, requests, timeout)
    with open_client(url):
        if plot is not None:
            require_matplotlib()
        reading = parse_reading(form, renames)
        items = Texts(words, candidates, seed) if file is None else item_files.read_rows(file, reading)
        found = _run_loads(loads, url, make_workload(to, options, items), bounds, seed)
        if plot is not None:
            plot_bench(found, plot)
    figures = [summarise_trials(load, trials, within) for load, trials in found]
    if as_json:
        typer.echo(json.dumps({"object": "list", "data": figures}))
    else:
        out = make_console()
        out.print(tabulate_figures(loads, figures))
        out.print("\n".join(note_figures(figures)))


def _choose_options(
    to: Purpose,
    rewards: list[str] | None,
    preference: list[str] | None,
    truncate: bool,
    model: str | None,
    max_tokens: int | None,
) -> dict[str, Any]:
    others = {"--model": model, "--max-tokens": max_tokens} if to == "score" else {"--reward": rewards}
    for name, value in others.items():
        if value:
            raise typer.BadParameter(f"{name} does not go with --to {to}")
    only = {"rewards": rewards} if to == "score" else {"model": model, "max_tokens": max_tokens or SHORT}
    return drop_unset(preferences=parse_weights(preference), truncate=truncate or None, **only)


def _run_loads(loads: Sequence[Load], url: str | None, workload: Workload, bounds: Bounds, seed: int) -> Found:
    found: Found = []
    for load in loads:
        first = 1 + sum(len(trials) for _, trials in found)
        with err.status(f"{load} for {bounds.seconds:g} s"):
            found.append((load, run_load(url, workload, load, bounds, seed, first)))
    return found


def _choose_loads(rates: Sequence[float] | None, concurrencies: Sequence[int] | None) -> list[Load]:
    if rates and concurrencies:
        raise typer.BadParameter("give --rate for an open loop or --concurrency for a closed one, not both")
    return [Load(rate=each) for each in rates or ()] or [Load(concurrency=each) for each in concurrencies or (8,)]


def tabulate_figures(loads: Sequence[Load], figures: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with one row for each load."""
    table = Table(
        *(Column(name, justify="left" if name in ("load", "refused", "errors") else "right") for name in COLUMNS)
    )
    for load, each in zip(loads, figures, strict=True):
        latencies = ["" if value is None else f"{1000 * value:.4g}" for value in each["latency"].values()]
        refused, errors = (_count(each[kind]) for kind in ("refusals", "errors"))
        cells = [str(load), f"{each['sent_rate']:.1f}", f"{each['goodput']:.1f}", *latencies, refused, errors]
        table.add_row(*map(Text, cells))
    return table


def _count(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "–"


def note_figures(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the table does not say, one sentence each."""
    notes = []
    if any(each["measured"] for each in figures):
        measured = ", ".join(f"{1000 * (each['measured']['p99'] or 0):.4g}" for each in figures)
        notes.append(f"corrected for coordinated omission; p99 as measured: {measured} ms")
    refusals = [each["refusal_latency"]["p99"] for each in figures if each["refusal_latency"]["p99"] is not None]
    if refusals:
        without = sum(each["refusals_without_retry_after"] for each in figures)
        notes.append(f"p99 of a refusal: {1000 * max(refusals):.4g} ms; without Retry-After: {without}")
    lag = max(each["lag_p99"] for each in figures)
    if lag > LATE:
        notes.append(
            f"this command was late by {1000 * lag:.4g} ms (p99), which the latencies contain: it may be the limit"
        )
    return notes
