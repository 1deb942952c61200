"""Figures with 95 % intervals: of shares, of weighted means of shares, and of any statistic by the bootstrap.

Pure numpy. The bootstrap draws whole items, each a prompt with all its answers, because the pairs of one prompt are not
independent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tureen_train.measures.non_finite import replace_non_finite

Z = 1.959963984540054  # the normal distribution's 97.5 % point
RESAMPLES = 1000
SEED = 0
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Figure:
    """A number, its 95 % interval, and the number of items or pairs behind it. NaN means undefined or unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the figure for JSON, with None for numbers that are not finite."""
        fields: dict[str, Any] = replace_non_finite(
            {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        )
        return fields


def dump_figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures by name for JSON."""
    return {name: figure.plain() for name, figure in figures.items()}


def parse_figure(value: Mapping[str, Any]) -> Figure:
    """Parse the result of :meth:`Figure.plain`."""
    numbers = {key: math.nan if value.get(key) is None else float(value[key]) for key in ("value", "low", "high")}
    return Figure(**numbers, n=int(value.get("n") or 0))


def estimate_share(credits: Sequence[float]) -> Figure:
    """Compute the mean of credits in [0, 1] of independent items, with Wilson's score interval.

    E. B. Wilson, JASA 22 (1927) 209-212. A tie has the credit ½ and counts as half a success. Such credits vary less
    than successes and failures do, so the interval is slightly too wide.
    """
    n = len(credits)
    if not n:
        return Figure(math.nan)
    p = math.fsum(credits) / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Figure(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def combine_weighted(parts: Sequence[Figure], weights: Sequence[float]) -> Figure:
    """Compute Σ wₖ·pₖ / Σ wₖ of independent figures, and its interval from their intervals (MOVER).

    With weights that sum to 1, the interval goes from p − √Σ wₖ²(pₖ − lowₖ)² to p + √Σ wₖ²(highₖ − pₖ)²:
    G. Y. Zou, W. Huang and X. Zhang, Computational Statistics & Data Analysis 53 (2009) 1080-1085.
    """
    total = math.fsum(weights)
    if not parts or not total:
        return Figure(math.nan)
    w = np.array(weights) / total
    value, low, high = (np.array([getattr(part, name) for part in parts]) for name in ("value", "low", "high"))
    mean = float((w * value).sum())
    down = float(np.sqrt((w * w * (value - low) ** 2).sum()))
    up = float(np.sqrt((w * w * (high - value) ** 2).sum()))
    return Figure(mean, mean - down, mean + up, sum(part.n for part in parts))


def bootstrap_interval(statistic: Callable[[Places], float], items: int, n: int | None = None) -> Figure:
    """Compute a statistic of items, with the percentile interval of 1,000 resamples drawn with a fixed seed.

    Args:
        statistic: computes the statistic from the numbers of the drawn items, which repeat; NaN if it is undefined.
        items: the number of items.
        n: the figure's ``n``; by default the number of items.
    """
    counted = items if n is None else n
    if not items:
        return Figure(math.nan, n=counted)
    value = statistic(np.arange(items))
    low, high = (
        compute_percentiles([statistic(places) for places in draw_resamples(items)])
        if items > 1
        else (math.nan, math.nan)
    )
    return Figure(value, low, high, counted)


def draw_resamples(items: int) -> list[Places]:
    """Draw 1,000 resamples: the numbers of the drawn items. They depend only on the number of items."""
    rng = np.random.default_rng(SEED)
    return [rng.integers(items, size=items) for _ in range(RESAMPLES)]


def compute_percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Compute the 2.5 and 97.5 percentiles of the values that are not NaN; NaN if more than half of them are NaN."""
    known = np.array(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if 2 * len(known) < len(values):
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
