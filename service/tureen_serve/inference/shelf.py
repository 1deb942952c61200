"""The models that could be loaded from the rewards root, by the names of their rewards. It is read again on demand."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tureen_serve.runtimes.rewards_root import find_clashes, list_sources
from tureen_serve.runtimes.root_folder import Source, UnusableFolder

LOG = logging.getLogger(__name__)
SCAN_SECONDS = 1.0
WATCH_SECONDS = 10.0


class Shelf:
    """The sources in a rewards root.

    Args:
        root: each folder directly in it may be a model.
        rewards: names that a source cannot have: the rewards of the start, and aliases.
        artifacts: names of artifacts that a source cannot have: those of the start.
        started: folders that are left out, because their models are loaded at the start.
        places: the folders of bases, by the names that models have for them.
        clock: seconds, for the rate of the scans.

    Attributes:
        sources: name of a reward → its source.
        refused: name of a reward → why its source is not offered.

    Raises:
        OSError: the root cannot be read.
    """

    def __init__(
        self,
        root: Path,
        rewards: Collection[str] = (),
        artifacts: Collection[str] = (),
        started: Collection[Path] = (),
        places: Mapping[str, Path] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._places = root, places
        self.reserve(rewards, artifacts, started)
        self._clock = clock
        self._known: Mapping[Path, Source | UnusableFolder] = {}
        self._told: set[tuple[str, str]] = set()
        self._scanning = asyncio.Lock()
        self._scanned = self._watched = clock()
        self.sources: Mapping[str, Source] = {}
        self.refused: Mapping[str, str] = {}
        self._take(self._list({}))

    def reserve(self, rewards: Collection[str], artifacts: Collection[str], started: Collection[Path]) -> None:
        """Replace the names and folders that are left out. What is on the shelf is looked at with the next scan."""
        self._rewards, self._artifacts = frozenset(rewards), frozenset(artifacts)
        self._started = frozenset(started)

    def has_replaced(self, source: Source) -> bool:
        """Tell whether another source has the folder of this one, or one of its names. False if it is on the shelf."""
        if (source.folder, source.state) in self._states:
            return False
        return (
            source.folder in self._known
            or source.manifest.name in self._names
            or any(name in self.sources or name in self.refused for name in source.names)
        )

    def is_due(self) -> bool:
        """Tell whether the root should be read again, although nothing is missing: once in :data:`WATCH_SECONDS`."""
        due = self._clock() - max(self._scanned, self._watched) >= WATCH_SECONDS
        if due:
            self._watched = self._clock()
        return due

    async def refresh(self) -> None:
        """Read the root again, but at most once in :data:`SCAN_SECONDS`."""
        async with self._scanning:
            if self._clock() - self._scanned < SCAN_SECONDS:
                return
            try:
                found = await asyncio.to_thread(self._list, self._known)
            except OSError as error:
                self._tell({("", f"the rewards root cannot be read: {error}")})
                return
            finally:
                self._scanned = self._clock()
            self._take(found)

    def _list(self, known: Mapping[Path, Source | UnusableFolder]) -> Sequence[Source | UnusableFolder]:
        return list_sources(self._root, known, self._started, self._places)

    def _take(self, found: Sequence[Source | UnusableFolder]) -> None:
        self._known = {each.folder: each for each in found}
        sources = [each for each in found if isinstance(each, Source)]
        clashes = find_clashes(sources, self._rewards, self._artifacts)
        offered = [each for each in sources if each.folder not in clashes]
        self.sources = {name: each for each in offered for name in each.names}
        self._states = {(each.folder, each.state) for each in offered}
        self._names = {each.manifest.name for each in offered}
        self.refused = {
            name: clashes[each.folder]
            for each in sources
            if each.folder in clashes
            for name in each.names
            if name not in self._rewards and name not in self.sources
        }
        unusable = {(each.state, each.reason) for each in found if isinstance(each, UnusableFolder)}
        self._tell(unusable | {(each.state, clashes[each.folder]) for each in sources if each.folder in clashes})

    def _tell(self, reasons: set[tuple[str, str]]) -> None:
        """Log why folders are not offered. The same reason for the same state of a folder is logged once."""
        for _, reason in sorted(reasons - self._told):
            LOG.warning("not offered: %s", reason)
        self._told = reasons
