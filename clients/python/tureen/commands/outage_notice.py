"""What a command says while its server is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from tureen.client import Client
from tureen.commands.flags import err, open_client
from tureen.errors import TureenError
from tureen.retry import Retries

NOTICED = 3.0


class OutageNotice:
    """Says on standard error, once for each outage, that the server is waited for, and then that it is back.

    Threads may share one. What is over within ``NOTICED`` seconds is not told.

    Args:
        outage: seconds for which the server is waited for; 0 says nothing.
    """

    def __init__(self, outage: float) -> None:
        self._outage = outage
        self._lock = Lock()
        self._told = False

    def __call__(self, error: TureenError, away: float) -> None:
        """A request failed and is sent again, ``away`` seconds after its first failure."""
        with self._lock:
            if self._told or not self._outage or away < NOTICED:
                return
            self._told = True
        _say(f"waiting up to {self._outage:g} s for the server: {error.message}")

    def end(self) -> None:
        """The server has answered."""
        with self._lock:
            told, self._told = self._told, False
        if told:
            _say("the server is back")


@contextmanager
def open_patient_client(url: str | None, outage: float) -> Iterator[tuple[Client, OutageNotice]]:
    """As :func:`tureen.commands.flags.open_client`, for work that is to outlast an outage of so many seconds."""
    waiting = OutageNotice(outage)
    with open_client(url, Retries(outage=outage), waiting) as client:
        yield client, waiting


def _say(sentence: str) -> None:
    err.print(f"tureen: {sentence}", markup=False, highlight=False, soft_wrap=True)
