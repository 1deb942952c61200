"""Write a measured front: the page, its plots, and all figures as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tureen_train.front.figures import FrontPoint, MethodFigures, compute_figures, list_front_points
from tureen_train.front.measured import MeasuredFront
from tureen_train.front.page import write_page
from tureen_train.front.plots import plot_fronts, plot_hypervolumes
from tureen_train.measures.intervals import dump_figures
from tureen_train.measures.non_finite import replace_non_finite


def write_front_report(front: MeasuredFront, folder: Path) -> Path:
    """Write ``front.html``, ``front.png``, ``hypervolume.png`` and ``results.json``. Returns the path of the page."""
    points = list_front_points(front)
    figures = {name: compute_figures(front, name) for name in front.methods}
    plot_fronts(front, points, folder / "front.png")
    plot_hypervolumes(figures, folder / "hypervolume.png")
    told = json.dumps(_dump(front, points, figures), indent=1) + "\n"
    (folder / "results.json").write_text(told, encoding="utf-8")
    return write_page(front, points, figures, folder / "front.html")


def _dump(front: MeasuredFront, points: Sequence[FrontPoint], figures: Mapping[str, MethodFigures]) -> Any:
    return replace_non_finite(
        {
            "front": front.name,
            "objectives": list(front.objectives),
            "units": dict(front.units),
            "reference": dict(zip(front.objectives, front.reference, strict=True)),
            "tolerance": front.tolerance,
            "prompts": len(front.prompts),
            "grid": {name: dict(weights) for name, weights in front.grid.items()},
            "baseline": front.baseline,
            "judge": front.judge,
            "methods": {
                name: {
                    **asdict(own),
                    "hypervolume": own.hypervolume.plain(),
                    "gain": own.gain.plain(),
                    "wins": dump_figures(own.wins),
                    "points": [
                        {
                            "point": each.point,
                            "means": dict(zip(front.objectives, each.means, strict=True)),
                            "front": each.front,
                            "tolerant_front": each.tolerant,
                            "own_front": each.own,
                        }
                        for each in points
                        if each.method == name
                    ],
                }
                for name, own in figures.items()
            },
        }
    )
