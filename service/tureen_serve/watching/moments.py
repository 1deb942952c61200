"""Means, deviations and the correlation of two numbers of each text, while the texts come. Pure.

The sums of squares are kept about the means (Welford 1962), and two parts are joined as by Chan, Golub and LeVeque
(1979). So large values with small differences lose no digits.
"""

import math
from collections import deque

BLOCK = 512
BLOCKS = 8


class Moments:
    """The moments of pairs (x, y).

    Attributes:
        count: the number of pairs.
        mean_x, mean_y: the means.
        xx, yy, xy: the sums of squares and products about the means.
    """

    __slots__ = ("count", "mean_x", "mean_y", "xx", "yy", "xy")

    def __init__(self) -> None:
        self.count = 0
        self.mean_x = self.mean_y = self.xx = self.yy = self.xy = 0.0

    def add_pair(self, x: float, y: float) -> None:
        """Add one pair."""
        self.count += 1
        from_x, from_y = x - self.mean_x, y - self.mean_y
        self.mean_x += from_x / self.count
        self.mean_y += from_y / self.count
        to_y = y - self.mean_y
        self.xx += from_x * (x - self.mean_x)
        self.yy += from_y * to_y
        self.xy += from_x * to_y

    def join(self, other: "Moments") -> None:
        """Add the pairs of another part."""
        if not other.count:
            return
        count = self.count + other.count
        apart_x, apart_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.count * other.count / count
        self.xx += other.xx + apart_x * apart_x * weight
        self.yy += other.yy + apart_y * apart_y * weight
        self.xy += other.xy + apart_x * apart_y * weight
        self.mean_x += apart_x * other.count / count
        self.mean_y += apart_y * other.count / count
        self.count = count

    def pool(self, other: "Moments") -> None:
        """Add the sums of another group about its own means. The means of a pool have no sense."""
        self.count += other.count
        self.xx += other.xx
        self.yy += other.yy
        self.xy += other.xy

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation; None if x or y is constant."""
        if not (self.xx > 0 and self.yy > 0):
            return None
        return max(-1.0, min(1.0, self.xy / (math.sqrt(self.xx) * math.sqrt(self.yy))))

    @property
    def deviation_y(self) -> float:
        """The population standard deviation of y."""
        return math.sqrt(self.yy / self.count) if self.count else 0.0


class RecentMoments:
    """The moments of the last texts: of the last 3,584 at least and 4,096 at most, once there were so many.

    A block of 512 texts is forgotten as a whole, because taking single values out of a sum loses digits.
    """

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: deque[Moments] = deque([Moments()], BLOCKS)

    def find_block(self) -> Moments:
        """Return the block for the next text or group."""
        block = self._blocks[-1]
        if block.count >= BLOCK:
            block = Moments()
            self._blocks.append(block)
        return block

    def join_blocks(self) -> Moments:
        """Return the moments of all texts."""
        whole = Moments()
        for block in self._blocks:
            whole.join(block)
        return whole

    def pool_blocks(self) -> Moments:
        """Return the pooled sums of blocks that groups were pooled into."""
        whole = Moments()
        for block in self._blocks:
            whole.pool(block)
        return whole
