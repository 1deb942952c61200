"""Read the configuration again on request (SIGHUP), and serve the rewards that it names then."""

import asyncio
import logging
from collections.abc import Callable

from tureen.errors import TureenError
from tureen_serve.changes.model_changes import ModelChanges
from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.security.audit import log_event
from tureen_serve.settings import Settings, SettingsError

LOG = logging.getLogger(__name__)
REREAD = {"rewards", "aliases"}


class ConfigReread:
    """Waits for requests to read the settings again.

    Rewards that the settings name now are loaded, others are unloaded, and changed ones are replaced, all in one step;
    aliases too. If anything is wrong, nothing changes, and the log says why. Other settings count at the next start.

    Args:
        read: reads the settings; it blocks.
        settings: those of the start.
    """

    def __init__(self, read: Callable[[], Settings], settings: Settings) -> None:
        self._read, self._settings = read, settings
        self._wanted = asyncio.Event()

    def request(self) -> None:
        """Have the settings read. Requests that come meanwhile have them read once more."""
        self._wanted.set()

    async def run(self, changes: ModelChanges) -> None:
        """Answer requests for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._reread(changes)
            except (SettingsError, TureenError) as error:
                LOG.error("the configuration was read again, and nothing was changed: %s", error)
                log_event("models_reread", result="refused", reason=str(error))
            except Exception:
                LOG.exception("the configuration could not be read again, and nothing was changed")

    async def _reread(self, changes: ModelChanges) -> None:
        settings = await run_in_daemon_thread(self._read)
        loaded, unloaded = await changes.reread(settings.rewards, settings.aliases)
        LOG.info(
            "the configuration was read again; loaded: %s; unloaded: %s",
            ", ".join(loaded) or "none",
            ", ".join(unloaded) or "none",
        )
        log_event("models_reread", result="done", loaded=loaded, unloaded=unloaded)
        others = [
            name
            for name in Settings.model_fields
            if name not in REREAD and getattr(settings, name) != getattr(self._settings, name)
        ]
        if others:
            LOG.warning("changed too, and read at the next start only: %s", ", ".join(others))
