"""Flags shared by the commands of ``tureen``, and a client whose errors end the command with a message."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from tureen.client import Client
from tureen.errors import TureenError
from tureen.item_forms import RowReading
from tureen.mixes import Normalize
from tureen.records.forms import check_form
from tureen.records.reading import parse_renames
from tureen.records.schema import BadOption
from tureen.retry import Retries

WIDE = 200  # columns where no terminal says how many it has


def make_console(stderr: bool = False) -> Console:
    """Make the console of a command. In a file or a pipe a table is not broken at 80 columns."""
    known = (sys.stderr if stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if known else WIDE)


err = make_console(stderr=True)
QUICK = Retries(limit=2)
INTERRUPTED = 130

Url = Annotated[str | None, typer.Option(help="The server; TUREEN_BASE_URL or http://127.0.0.1:8900 by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text and tables.")]
Preference = Annotated[
    list[str] | None, typer.Option("--preference", "-p", help="A weight, as academy=0.6. May be repeated.")
]
HowNormalised = Annotated[
    Normalize | None,
    typer.Option("--normalize", help="none: use the weights as given, negative ones too. By default they sum to 1."),
]
DesiredReward = Annotated[
    list[str] | None,
    typer.Option(
        "--desired-reward",
        "-d",
        help="A normalised reward to ask a policy with reward tags for, as helpful=1.5. May be repeated.",
    ),
]
Reward = Annotated[list[str] | None, typer.Option("--reward", "-r", help="A reward to score by. May be repeated.")]
Truncate = Annotated[bool, typer.Option("--truncate", help="Cut the start of texts that are too long.")]
Model = Annotated[str | None, typer.Option(help="The policy family; the server's first one by default.")]
MaxTokens = Annotated[int | None, typer.Option(help="The maximum number of tokens to generate.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling reproducible.")]
Outage = Annotated[
    float, typer.Option(min=0, help="Seconds to wait while the server is unreachable, as during a restart.")
]
ItemsFile = typer.Option(
    exists=True,
    help="Items {prompt, candidates} or any form of preference data, in JSON Lines, a JSON list, CSV, TSV, Parquet, "
    "or a folder saved by `datasets`.",
)
FormOf = Annotated[str, typer.Option("--form", help="The form of the file's rows; `auto` looks at the columns.")]
Renames = Annotated[
    list[str] | None,
    typer.Option("--map", help="Read a column under another name, OLD=NEW; OLD= leaves it out. May be repeated."),
]


@contextmanager
def open_client(
    url: str | None, retries: Retries = QUICK, on_retry: Callable[[TureenError, float], object] | None = None
) -> Iterator[Client]:
    """Open a client. An error is printed on standard error and ends the command with exit code 1."""
    try:
        with Client(url, retries=retries, on_retry=on_retry) as client:
            yield client
    except (TureenError, OSError) as error:
        request = getattr(error, "request_id", None)
        typer.echo(f"tureen: {error}{f' (request {request})' if request else ''}", err=True)
        raise typer.Exit(1) from error


def parse_reading(form: str, renames: list[str] | None) -> RowReading:
    """How rows become items, by ``--form`` and ``--map``.

    Raises:
        typer.BadParameter: there is no such form, or a renaming is malformed.
    """
    try:
        check_form(form)
        return RowReading(form, parse_renames(renames or ()))
    except BadOption as error:
        raise typer.BadParameter(str(error)) from None


def parse_weights(pairs: list[str] | None, flag: str = "--preference", what: str = "weight") -> dict[str, float] | None:
    """Parse weights such as ``["academy=0.6", "business=0.4"]``. Return None if there are none.

    Args:
        flag: that has them, for errors.
        what: one of them, for errors.

    Raises:
        typer.BadParameter: a weight is malformed or given twice.
    """
    found: dict[str, float] = {}
    for pair in pairs or []:
        name, _, number = pair.partition("=")
        if name in found:
            raise typer.BadParameter(f"{name!r} has two {what}s; give one", param_hint=flag)
        try:
            found[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{pair!r} is not a {what}: write it as academy=0.6", param_hint=flag) from None
    return found or None


def parse_weighing(pairs: list[str] | None, normalize: Normalize | None) -> dict[str, Any]:
    """Parse ``--preference`` and ``--normalize`` into fields of a request for rewards. Those not given are left out.

    Raises:
        typer.BadParameter: as :func:`parse_weights`, ``--normalize`` stands alone, or a weight is negative without it.
    """
    weights = parse_weights(pairs)
    if normalize is not None and weights is None:
        raise typer.BadParameter("say which weights with -p", param_hint="--normalize")
    below = next((name for name, weight in (weights or {}).items() if weight < 0), None)
    if below is not None and normalize != "none":
        raise typer.BadParameter(
            f"{below!r} is negative: add --normalize none to subtract it", param_hint="--preference"
        )
    return drop_unset(preferences=weights, normalize=normalize)


def drop_unset(**options: Any) -> dict[str, Any]:
    """Return the options that are not None, so that the server's defaults apply to the others."""
    return {name: value for name, value in options.items() if value is not None}
