"""Drift of a reward: whether its recent scores still have the distribution of its calibration. Pure.

A calibration holds the mean and the standard deviation of held-out answers, and no quantiles. So the reference is the
normal distribution, and a score z in these deviations becomes u = Φ(z). As long as nothing has moved and the held-out
answers were normal, u is uniform on [0, 1] (the probability integral transform). Two numbers measure how far it is not:

* the population stability index over ten equal cells, Σ (share − 0.1) · ln(share / 0.1). Below 0.1 it is usually called
  stable, above 0.25 a shift (Siddiqi, Credit Risk Scorecards, 2006);
* the Kolmogorov-Smirnov distance, the largest difference between the share of scores below a point and Φ.

For a normal distribution whose mean moved by d deviations they are about d² and 2Φ(d/2) − 1.
"""

import math
from itertools import accumulate

CELLS = 250  # a cell's number is a byte
DECILES = 10
WINDOW = 4096
LEAST = 512  # fewer texts make a stability index of 9 / texts by chance alone


def compute_normal_share(deviations: float) -> float:
    """Compute Φ, the share of a normal distribution that lies below a score."""
    return 0.5 * math.erfc(-deviations / math.sqrt(2))


class DriftWindow:
    """The last scores of one reward, as counts of their cells. Adding a score takes constant time.

    Args:
        size: the number of scores.

    Attributes:
        texts: the number of scores in the window.
    """

    __slots__ = ("texts", "_cells", "_counts", "_next", "_size")

    def __init__(self, size: int = WINDOW) -> None:
        self.texts = 0
        self._size = size
        self._cells = bytearray(size)
        self._counts = [0] * CELLS
        self._next = 0

    def add_score(self, deviations: float) -> None:
        """Add a score, in deviations of the calibration. The oldest one leaves a full window."""
        place = self._next
        if self.texts == self._size:
            self._counts[self._cells[place]] -= 1
        else:
            self.texts += 1
        cell = min(int(compute_normal_share(deviations) * CELLS), CELLS - 1)
        self._cells[place] = cell
        self._counts[cell] += 1
        self._next = (place + 1) % self._size

    def compute_stability(self) -> float | None:
        """Compute the population stability index; None below 512 texts.

        Each cell's count has ½ added, so that an empty cell has a finite logarithm.
        """
        if self.texts < LEAST:
            return None
        width, expected = CELLS // DECILES, 1 / DECILES
        counts = [sum(self._counts[start : start + width]) for start in range(0, CELLS, width)]
        shares = [(count + 0.5) / (self.texts + 0.5 * DECILES) for count in counts]
        return math.fsum((share - expected) * math.log(share / expected) for share in shares)

    def compute_distance(self) -> float | None:
        """Compute the Kolmogorov-Smirnov distance, at most 1/250 too small; None below 512 texts."""
        if self.texts < LEAST:
            return None
        below = accumulate(self._counts)
        return max(abs(count / self.texts - edge / CELLS) for edge, count in enumerate(below, 1))
