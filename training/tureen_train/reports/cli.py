"""``tureen-train watch``: the curves of a run in the terminal, while it trains."""

from pathlib import Path
from typing import Annotated

import typer


def watch_command(
    folder: Annotated[Path, typer.Argument(help="the folder of a run, as runs/my-pairs")],
    once: Annotated[bool, typer.Option("--once", help="Show it once instead of until it has finished.")] = False,
) -> None:
    """Show the loss, the accuracy and the rewards of a run while it trains. Ctrl-C ends the watching, not the run."""
    from tureen_train.reports.watching import show_curves  # seconds to import: not for --help

    show_curves(folder, once)
