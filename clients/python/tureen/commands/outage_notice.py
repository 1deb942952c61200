"""Tell the user that a command waits for an unreachable server."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from tureen.client import Client
from tureen.commands.flags import err, open_client
from tureen.errors import TureenError
from tureen.retry import Retries

NOTICED = 3.0


class OutageNotice:
    """Prints one message on standard error when an outage begins and one when it ends.

    Thread-safe. Outages shorter than ``NOTICED`` seconds are not reported.

    Args:
        outage: the longest wait in seconds; 0 prints nothing.
    """

    def __init__(self, outage: float) -> None:
        self._outage = outage
        self._lock = Lock()
        self._printed = False

    def __call__(self, error: TureenError, away: float) -> None:
        """Report that a request will be retried, ``away`` seconds after its first failure."""
        with self._lock:
            if self._printed or not self._outage or away < NOTICED:
                return
            self._printed = True
        _print_notice(f"waiting up to {self._outage:g} s for the server: {error.message}")

    def end(self) -> None:
        """Report that the server has answered."""
        with self._lock:
            printed, self._printed = self._printed, False
        if printed:
            _print_notice("the server is back")


@contextmanager
def open_patient_client(url: str | None, outage: float) -> Iterator[tuple[Client, OutageNotice]]:
    """Open a client that keeps trying for ``outage`` seconds; see :func:`tureen.commands.flags.open_client`."""
    waiting = OutageNotice(outage)
    with open_client(url, Retries(outage=outage), waiting) as client:
        yield client, waiting


def _print_notice(sentence: str) -> None:
    err.print(f"tureen: {sentence}", markup=False, highlight=False, soft_wrap=True)
