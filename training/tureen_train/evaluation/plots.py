"""Pictures of a run, as PNG: what its loss and accuracy did, and how honest its probabilities are."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from tureen_train.evaluation.metrics import Array, bin_of, both_ways

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
        for name, value in accuracies(entry).items():
            accuracy.setdefault(name, []).append((entry["step"], value))
    if accuracy:
        written.append(_lines(accuracy, "pair accuracy", folder / "accuracy.png", floor=0.5))
    return written


def accuracies(entry: Mapping[str, Any]) -> dict[str, float]:
    """Pair accuracy by evaluation file in one entry of a log; TRL's has the file's name on its loss only."""
    found = {}
    for key, value in entry.items():
        if match := re.fullmatch(r"eval_(.+)_(accuracy|loss)", key):
            name, figure = match.groups()
            number = value if figure == "accuracy" else entry.get("eval_rewards/accuracies", math.nan)
            if name != "mean_token" and number == number:
                found[name] = number
    return found


def _lines(
    series: Mapping[str, Sequence[tuple[int, float]]], label: str, path: Path, floor: float | None = None
) -> Path:
    figure, axes = sheet()
    for number, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name, color=ACCENTS[number % len(ACCENTS)], marker="o", markersize=3)
    if floor is not None:
        axes.axhline(floor, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return save(figure, path)


def reliability(gaps: Array, path: Path, temperature: float = 1.0, bins: int = 10) -> Path:
    """Reliability diagram of σ(gap / temperature): how often a pair judged p turns out so, against p.

    Each pair counts both ways round, so the picture is symmetric about (½, ½).
    """
    figure, axes = sheet()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":", label="honest")
    for label, scale, colour in (("as trained", 1.0, ACCENTS[0]), (f"T = {temperature:.2f}", temperature, ACCENTS[1])):
        p, outcome = both_ways(gaps / scale)
        index = bin_of(p, bins)
        full = [k for k in range(bins) if np.any(index == k)]
        means = [[float(p[index == k].mean()), float(outcome[index == k].mean())] for k in full]
        axes.plot(*zip(*means, strict=True), marker="o", color=colour, label=label)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed frequency")
    axes.legend(frameon=False)
    return save(figure, path)


def sheet() -> tuple[Any, Any]:
    """An empty figure and its axes, in the house style."""
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes


def save(figure: Any, path: Path) -> Path:
    """Write a figure and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
