"""A scatter plot of reward margins against the similarity of the two answers."""

from pathlib import Path

from tureen_train.measures.margins import Margins
from tureen_train.measures.metrics import Array
from tureen_train.reports.plots import ACCENTS, make_axes, save_figure

Curve = tuple[Array, Array]


def plot_scatter(margins: Margins, measure: str, path: Path, curve: Curve | None = None) -> Path:
    """Plot the gaps of all pairs against a similarity.

    Args:
        measure: the similarity, as ``cosine``.
        curve: s and δ(s) in rising order of s; δ and δ/2 are drawn as lines.
    """
    figure, axes = make_axes()
    s = margins.similarity[measure]
    right = margins.gaps > 0
    axes.scatter(s[right], margins.gaps[right], s=10, color=ACCENTS[1], alpha=0.6, label="right")
    axes.scatter(s[~right], margins.gaps[~right], s=10, color=ACCENTS[0], alpha=0.6, label="wrong, or equal")
    axes.axhline(0, color="grey", linewidth=0.8)
    if curve is not None:
        places, caps = curve
        low, high = axes.get_ylim()
        axes.plot(places, caps, color=ACCENTS[2], label="δ")
        axes.plot(places, caps / 2, color=ACCENTS[2], linestyle="--", label="δ/2, minimum of the loss")
        axes.set_ylim(low, max(high, 1.1 * float(caps.min())))
    axes.set_xlabel(f"similarity of the two answers ({measure.replace('_', ' ')})")
    axes.set_ylabel("reward of the better answer minus the worse")
    axes.legend(loc="best", frameon=False, fontsize=9)
    return save_figure(figure, path)
