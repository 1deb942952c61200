"""How far two versions of a reward agree on the same texts. Pure.

The recent scores are the last 2,048 texts. Ranks of equal scores are averaged, and the correlation of ranks is
Spearman's.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import combinations, groupby
from statistics import fmean

from tureen_serve.watching.drift import DriftWindow
from tureen_serve.watching.moments import Moments

WINDOW = 2048


class Agreement:
    """Compares the scores of a live version of a reward with those of its shadow.

    Args:
        live: the fingerprint of the live version.
        fitted: whether both have a calibration. Then scores are in deviations of their own calibration, else raw.

    Attributes:
        live, fitted: as the arguments.
        texts: the number of texts that were compared.
        pairs: the number of pairs of answers to one prompt.
        agreed: the number of these pairs that both order the same way, or both call equal.
        live_drift, shadow_drift: the recent scores of each against its own calibration; empty without one.
    """

    def __init__(self, live: str, fitted: bool) -> None:
        self.live, self.fitted = live, fitted
        self.texts = self.pairs = self.agreed = 0
        self.live_drift, self.shadow_drift = DriftWindow(), DriftWindow()
        self._recent: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def take_group(self, live: Sequence[float], shadow: Sequence[float]) -> None:
        """Take the finite scores of the answers to one prompt, in the same order."""
        both = list(zip(live, shadow, strict=True))
        self.texts += len(both)
        self._recent.extend(both)
        for one, other in combinations(both, 2):
            self.pairs += 1
            self.agreed += _compare(one[0], other[0]) == _compare(one[1], other[1])
        if self.fitted:
            for first, second in both:
                self.live_drift.add_score(first)
                self.shadow_drift.add_score(second)

    @property
    def pair_agreement(self) -> float | None:
        """The share of pairs that agree; None without pairs."""
        return self.agreed / self.pairs if self.pairs else None

    @property
    def mean_difference(self) -> float | None:
        """The mean of shadow minus live over the recent texts; None without texts."""
        return fmean(shadow - live for live, shadow in self._recent) if self._recent else None

    @property
    def largest_difference(self) -> float | None:
        """The largest distance of two scores of a recent text; None without texts."""
        return max((abs(shadow - live) for live, shadow in self._recent), default=None)

    def compute_rank_correlation(self) -> float | None:
        """Compute Spearman's correlation of the recent scores; None below two texts, or if one version is constant."""
        moments = Moments()
        columns = list(zip(*self._recent, strict=True)) or [(), ()]
        for first, second in zip(*map(rank_values, columns), strict=True):
            moments.add_pair(first, second)
        return moments.correlation


def rank_values(values: Sequence[float]) -> list[float]:
    """Rank values from 1 on. Equal values have the mean of their ranks."""
    ranks = [0.0] * len(values)
    for place, tied in _group_equal(values):
        for index in tied:
            ranks[index] = place + (len(tied) + 1) / 2
    return ranks


def _group_equal(values: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
    """Yield the indices of equal values, smallest values first, and how many values are smaller."""
    place = 0
    for _, found in groupby(sorted(range(len(values)), key=values.__getitem__), key=values.__getitem__):
        tied = list(found)
        yield place, tied
        place += len(tied)


def _compare(first: float, second: float) -> int:
    return (first > second) - (first < second)
