"""Read the file of keys again when it changes, also when Kubernetes exchanges the link to a mounted secret."""

import asyncio
import logging
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.security.audit import log_event
from tureen_serve.security.key_ring import KeyRing, parse_key_ring, read_key_file
from tureen_serve.settings import SettingsError

LOG = logging.getLogger(__name__)
EVERY = 1.0  # seconds


class KeyWatch:
    """The current keys of a file.

    The file is read every second and its bytes are compared: times and sizes may stay the same when a link is
    exchanged. New bytes count when they are read twice, so that a file is not taken while it is written. A new file
    that cannot be used keeps the old keys; the log and the metric ``tureen_keys_file_refused`` tell it.

    Args:
        registry: where the metrics go.

    Attributes:
        ring: the keys that count now.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(self, path: Path, registry: CollectorRegistry) -> None:
        self._path = path
        self._judged: bytes | None = read_key_file(path)
        self.ring: KeyRing = parse_key_ring(self._judged, path.name)
        self._refused = Gauge("tureen_keys_file_refused", "1 while the file of keys cannot be used", registry=registry)
        self._known = Gauge("tureen_keys", "Keys that the server knows", registry=registry)
        self._known.set(len(self.ring.callers))
        self._fault: str | None = None

    async def run(self) -> None:
        """Look at the file for ever."""
        seen: bytes | None = None
        while True:
            await asyncio.sleep(EVERY)
            try:
                content = await run_in_daemon_thread(lambda: read_key_file(self._path))
                if content == seen and content != self._judged:
                    await self._judge(content)
                seen = content
            except Exception as error:  # whatever it is, the watch goes on
                known = isinstance(error, SettingsError)
                self._tell(str(error) if known else f"keys: {type(error).__name__} while the file was read")
                seen = self._judged = None

    async def _judge(self, content: bytes) -> None:
        try:
            ring = await run_in_daemon_thread(partial(parse_key_ring, content, self._path.name, self.ring))
        except SettingsError as error:
            self._tell(str(error))
        else:
            self._take(ring)
        self._judged = content

    def _take(self, ring: KeyRing) -> None:
        self.ring = ring
        self._known.set(len(ring.callers))
        self._tell(None)
        log_event("keys_read", file=self._path.name, keys=[caller.name for caller in ring.callers])

    def _tell(self, fault: str | None) -> None:
        """Note why the newest file cannot be used, or that it can. Each reason is logged once."""
        self._refused.set(fault is not None)
        if fault is not None and fault != self._fault:
            LOG.error("%s; the keys from before stay", fault)
        self._fault = fault
