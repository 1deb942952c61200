"""uvicorn's server with an orderly end at a signal, and a quick one if a runtime is dead or a forward pass is stuck."""

import asyncio
import logging
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

import uvicorn

from tureen.errors import Unavailable

LOG = logging.getLogger(__name__)
DEAD_STATUS = 70  # EX_SOFTWARE
WATCH_SECONDS = 0.1
REPLY_SECONDS = 1.0  # after a death, for requests that end by themselves; then the others are stopped
CLOSE_SECONDS = 2  # after a death, until the connections are closed
LAST_SECONDS = 4.5  # after a death, until the process ends, whatever still runs
SPARE_SECONDS = 10.0  # after the time for running requests, until a server that ends is ended


class Server(uvicorn.Server):
    """uvicorn with an end that is in time.

    A signal makes the server unready at once, and it stops listening ``drain`` seconds later. The server also ends if
    the models cannot be loaded. If a runtime cannot run again in this process, all that is in flight is answered, and
    the process ends within five seconds.

    Args:
        state: the application's state, with ``server`` and ``in_flight``.
    """

    def __init__(self, config: uvicorn.Config, state: Any, drain: float) -> None:
        super().__init__(config)
        self._state = state
        self._drain = drain
        self._stopping = False
        self._watching: asyncio.Task[None] | None = None
        self.death: Unavailable | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to stop. A second SIGINT stops at once."""
        self._state.server.draining = True
        self.force_exit = self._stopping and sig == signal.SIGINT
        if self._stopping or not self._drain:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._drain, setattr, self, "should_exit", True)
        self._stopping = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and to watch the engine. SIGHUP has the configuration read again, if there is one."""
        await super().startup(sockets)
        if self._state.reread is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._state.reread.request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came during the start counts now
        self._watching = asyncio.create_task(self._watch_engine())

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server must end."""
        return await super().on_tick(counter) or self._state.server.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, let running requests end, and close the application."""
        grace = self.config.timeout_graceful_shutdown or 0
        end_process_later(grace + SPARE_SECONDS, "the server did not end in time")
        if self._state.server.changes is not None:
            self._state.server.changes.stop()
        await super().shutdown(sockets)

    async def _watch_engine(self) -> None:
        while (death := self._state.server.explain_death()) is None:
            await asyncio.sleep(WATCH_SECONDS)
        self._die(death)

    def _die(self, death: Unavailable) -> None:
        """Answer all that is in flight, and end."""
        self.death = death
        end_process_later(LAST_SECONDS)
        LOG.critical("the server ends with status %d and must be started again: %s", DEAD_STATUS, death.message)
        self._state.server.engine.abandon(death)
        self.config.timeout_graceful_shutdown = CLOSE_SECONDS
        asyncio.get_running_loop().call_later(REPLY_SECONDS, self._state.in_flight.end, death)
        self.should_exit = True


def end_process_later(seconds: float, why: str | None = None) -> None:
    """End the process with :data:`DEAD_STATUS` in some seconds, if it still runs then. ``why`` is logged."""

    def end() -> None:
        if why is not None:
            LOG.critical("%s; it is ended with status %d", why, DEAD_STATUS)
        end_process()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def end_process(status: int = DEAD_STATUS) -> None:
    """End the process at once. No thread is waited for, and nothing is written."""
    os._exit(status)
