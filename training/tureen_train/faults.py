"""Ends a command that fails by a user's mistake: one sentence on standard error and exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from tureen.errors import TureenError
from tureen_core.base import BaseError

# errors of recipes, data, artifacts and proofs are ValueErrors
FAULTS = (ValueError, OSError, FloatingPointError, BaseError, TureenError)


@contextmanager
def exit_on_user_error(before: str = "") -> Iterator[None]:
    """Print an error that the user can correct and exit with status 1. Other errors keep their traceback.

    Args:
        before: printed before the sentence, as a line break after a progress bar.
    """
    try:
        yield
    except FAULTS as error:
        typer.echo(f"{before}tureen-train: {error}", err=True)
        raise typer.Exit(1) from error
