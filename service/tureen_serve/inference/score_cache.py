"""Cache recent scores, so that a retry or a repeated rollout is not computed again. Pure.

The key is the digest of a row, which stands for its token ids and its adapters. The adapters of a lane never change, so
a cached score stays valid as long as the lane lives.
"""

from collections import OrderedDict
from dataclasses import replace

from tureen_serve.runtimes.contract import Rewards, Row


class ScoreCache:
    """The rewards of the ``size`` rows that were used last. A size of 0 caches nothing.

    Attributes:
        lookups: the number of rows that were looked up.
        hits: the number of rows that were found.
    """

    def __init__(self, size: int) -> None:
        self.lookups = self.hits = 0
        self._size = size
        self._rewards: OrderedDict[bytes, Rewards] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rewards)

    def get(self, row: Row) -> Rewards | None:
        """Return the rewards of a row, with all its tokens counted as cached; None if the row is unknown."""
        self.lookups += bool(self._size)
        if not self._rewards:
            return None
        key = row.digest
        found = self._rewards.get(key)
        if found is None:
            return None
        self.hits += 1
        self._rewards.move_to_end(key)
        return replace(found, cached=len(row.ids))

    def put(self, row: Row, rewards: Rewards) -> None:
        """Add the rewards of a row. If the cache is full, the row that was used longest ago is dropped."""
        if not self._size:
            return
        key = row.digest
        self._rewards[key] = rewards
        self._rewards.move_to_end(key)
        if len(self._rewards) > self._size:
            self._rewards.popitem(last=False)
