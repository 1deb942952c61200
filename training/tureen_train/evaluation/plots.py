"""Pictures of a run, as PNG: what its loss and accuracy did, and how honest its probabilities are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from tureen_train.evaluation.metrics import Array, both_ways

matplotlib.use("Agg")
from matplotlib import pyplot

INK = "#2f4858"
ACCENTS = ("#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#3d5a80")


def curves(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """``loss.png`` and, where there were evaluations, ``accuracy.png`` from a Trainer's log history."""
    written = []
    loss = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    if loss:
        written.append(_lines({"training": loss}, "loss", folder / "loss.png"))
    accuracy: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for key, value in entry.items():
            if key.startswith("eval_") and key.endswith("accuracy") and value == value:
                name = key.removeprefix("eval_").removesuffix("accuracy").strip("_") or "evaluation"
                accuracy.setdefault(name, []).append((entry["step"], value))
    if accuracy:
        written.append(_lines(accuracy, "pair accuracy", folder / "accuracy.png", floor=0.5))
    return written


def _lines(
    series: Mapping[str, Sequence[tuple[int, float]]], label: str, path: Path, floor: float | None = None
) -> Path:
    figure, axes = _axes()
    for number, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name, color=ACCENTS[number % len(ACCENTS)], marker="o", markersize=3)
    if floor is not None:
        axes.axhline(floor, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return _save(figure, path)


def reliability(gaps: Array, path: Path, temperature: float = 1.0, bins: int = 10) -> Path:
    """Reliability diagram of σ(gap / temperature): how often a pair judged p turns out so, against p.

    Each pair counts both ways round, so the picture is symmetric about (½, ½).
    """
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":", label="honest")
    for label, scale, colour in (("as trained", 1.0, ACCENTS[0]), (f"T = {temperature:.2f}", temperature, ACCENTS[1])):
        p, outcome = both_ways(gaps / scale)
        index = np.clip((p * bins).astype(int), 0, bins - 1)
        full = [k for k in range(bins) if np.any(index == k)]
        means = [[float(p[index == k].mean()), float(outcome[index == k].mean())] for k in full]
        axes.plot(*zip(*means, strict=True), marker="o", color=colour, label=label)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed frequency")
    axes.legend(frameon=False)
    return _save(figure, path)


def _axes() -> tuple[Any, Any]:
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
