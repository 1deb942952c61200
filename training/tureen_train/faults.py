"""How a command ends that cannot go on: one sentence on standard error and exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from tureen.errors import TureenError
from tureen_core.base import BaseError

# recipes, data, artifacts and proofs are ValueErrors
FAULTS = (ValueError, OSError, FloatingPointError, BaseError, TureenError)


@contextmanager
def exit_on_user_error(before: str = "") -> Iterator[None]:
    """Turn what a user can mend into a sentence; anything else is a fault of ours and keeps its traceback.

    Args:
        before: put before the sentence, as the end of a line on which a progress bar stands.
    """
    try:
        yield
    except FAULTS as error:
        typer.echo(f"{before}tureen-train: {error}", err=True)
        raise typer.Exit(1) from error
