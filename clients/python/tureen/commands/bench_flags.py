"""Flags of ``tureen bench``."""

from pathlib import Path
from typing import Annotated

import typer

from tureen.bench.workloads import Purpose

DAY = 86_400.0


To = Annotated[Purpose, typer.Option(help="Score each item, or answer its prompt.")]
Rates = Annotated[
    list[float] | None,
    typer.Option(
        "--rate",
        min=1e-3,
        max=1e5,
        help="Open loop: requests a second, at random times (Poisson). May be repeated.",
    ),
]
Concurrencies = Annotated[
    list[int] | None,
    typer.Option(
        "--concurrency", min=1, max=4096, help="Closed loop: requests at a time. May be repeated; 8 by default."
    ),
]
Seconds = Annotated[float, typer.Option(min=0.1, max=DAY, help="How long each load lasts.")]
Requests = Annotated[int, typer.Option(min=1, max=1_000_000, help="The most requests of each load.")]
Timeout = Annotated[
    float,
    typer.Option(min=0.001, max=DAY, help="Seconds for one request; the server is told too."),
]
Within = Annotated[
    float | None,
    typer.Option(min=0, max=DAY, help="Goodput counts only answers within so many seconds."),
]
Words = Annotated[int, typer.Option(min=2, max=100_000, help="The most words of a built-in text.")]
Candidates = Annotated[int, typer.Option(min=1, max=1024, help="Answers to each built-in prompt.")]
BenchSeed = Annotated[int, typer.Option("--seed", help="The same seed gives the same texts and times.")]
Plot = Annotated[Path | None, typer.Option(dir_okay=False, help="Write a plot, as out.png; this needs matplotlib.")]
