"""What commands show: tables, a log and progress bars. A file or a pipe gets whole lines and no bars."""

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress

WIDE = 1000  # columns of a file, so that no cell of a table is broken
NOISY = ("httpx", "httpx2", "filelock", "fsspec")


def make_console(*, stderr: bool = False) -> Console:
    """Make the console for tables on standard output, or for bars on standard error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE)


def show_progress(*, transient: bool = False) -> Progress:
    """Make a progress bar on standard error. Where that is no terminal, the bar shows nothing."""
    return Progress(console=make_console(stderr=True), disable=not sys.stderr.isatty(), transient=transient)


def start_log(level: str) -> None:
    """Log to standard output. Where that is no terminal, each entry is one line with its date and level."""
    if sys.stdout.isatty():
        handler: logging.Handler = RichHandler(console=make_console(), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    for name in NOISY:
        logging.getLogger(name).setLevel("WARNING")
