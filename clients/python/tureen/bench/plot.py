"""Plot a bench: latencies by quantile for each load, and over time for the last. It needs matplotlib."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tureen.bench.trial import Load, Trial
from tureen.errors import Unprocessable

TICKS = {"0": 0.0, "50 %": 0.5, "90 %": 0.9, "99 %": 0.99, "99.9 %": 0.999, "99.99 %": 0.9999}
KINDS = {"answered": "#00798c", "refused": "#edae49", "failed": "#d1495b"}


def require_matplotlib() -> Any:
    """Return the module ``matplotlib.figure``.

    Raises:
        Unprocessable: it is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError:
        raise Unprocessable("a plot needs matplotlib: pip install matplotlib", param="--plot") from None
    return figure


def plot_bench(found: Sequence[tuple[Load, Sequence[Trial]]], path: Path) -> None:
    """Write the plot of some loads as a file of the type that its name has."""
    page = require_matplotlib().Figure(figsize=(10, 4), dpi=120, layout="constrained")
    shares, times = page.subplots(1, 2)
    for load, trials in found:
        ordered = sorted(1000 * each.latency for each in trials if each.answered or each.timed_out)
        points = [_nines((rank + 0.5) / len(ordered)) for rank in range(len(ordered))]
        shares.plot(points, ordered, label=str(load))
    most = max((len(trials) for _, trials in found), default=1)
    ticks = {name: _nines(share) for name, share in TICKS.items() if share < 1 - 0.5 / max(most, 1)}
    shares.set_xticks(list(ticks.values()), list(ticks))
    shares.set_xlabel("share of the requests that took less")
    shares.legend(loc="best", frameon=False)
    load, trials = found[-1]
    for kind, colour in KINDS.items():
        some = [each for each in trials if _kind(each) == kind]
        dots = [each.due for each in some], [1000 * each.latency for each in some]
        times.scatter(*dots, s=4, color=colour, label=f"{kind}: {len(some)}")
    times.set_xlabel(f"seconds since the load of {load} began")
    times.legend(loc="best", frameon=False)
    for axes in (shares, times):
        axes.set_ylabel("latency in ms")
        if any(trials for _, trials in found):
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    page.savefig(path)


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _kind(trial: Trial) -> str:
    return "answered" if trial.answered else "refused" if trial.refused else "failed"
