"""The page of a measured front: one HTML file with its plots and texts, which asks for nothing over the network.

Plotly's JavaScript stands in the file. A content security policy forbids every request, also that of a link in a text.
Texts stand in the page as JSON and are shown as plain text; they are never read as HTML.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from tureen_train.front.figures import FrontPoint, MethodFigures, describe_point
from tureen_train.front.measured import MeasuredFront, MeasuredMethod
from tureen_train.front.pareto import chain_points
from tureen_train.measures.intervals import Figure
from tureen_train.measures.non_finite import replace_non_finite
from tureen_train.reports.document import STYLE

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
HERE = Path(__file__).parent
COLUMNS = (
    *("method", "hypervolume", "minus the baseline's", "win rates", "words", "finished", "distinct-2"),
    *("nats from the base", "tokens per answer", "seconds per request", "training"),
)


def write_page(
    front: MeasuredFront, points: Sequence[FrontPoint], figures: Mapping[str, MethodFigures], path: Path
) -> Path:
    """Write the page. Returns its path."""
    data = json.dumps(replace_non_finite(_collect(front, points, figures)), ensure_ascii=True)
    inside = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    style = STYLE.read_text(encoding="utf-8") + (HERE / "page.css").read_text(encoding="utf-8")
    title = html.escape(f"{front.name}: the front of every method")
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main><h1>{title}</h1>\n"
        f"{_explain(front)}\n{_tabulate(front, figures)}\n{_lay_out(len(front.objectives) == 3)}"
        f'<script type="application/json" id="front-data">{inside}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>\n"
        "</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _explain(front: MeasuredFront) -> str:
    corner = ", ".join(f"{name} {value:g}" for name, value in zip(front.objectives, front.reference, strict=True))
    return (
        f"<p>Every method answered the same {len(front.prompts)} prompts at the same preferences. A point is the mean "
        "of the rewards; it is filled if no point of any method is as good in all objectives and better in one. The "
        f"hypervolume is the volume between a method's points and the reference ({html.escape(corner)}), which is the "
        "same for all methods. Intervals hold 95 % of a bootstrap over the prompts. A win rate of ½ is that of the "
        f"baseline, {html.escape(front.baseline)}; ties count ½.</p>"
    )


def _lay_out(ternary: bool) -> str:
    """The places of the plots. Their ids are those that ``page.js`` fills."""
    triangle = (
        '<h2>Rewards by preference</h2><div class="controls"><label>Method <select id="ternary-method"></select>'
        '</label> <label>Colour <select id="ternary-value"></select></label></div>'
        '<div class="plot" id="ternary-plot"></div>'
    )
    return (
        '<h2>Fronts</h2><div class="plots"><div><div class="controls"><label>Across <select id="front-x"></select>'
        '</label> <label>Up <select id="front-y"></select></label></div><div class="plot" id="front-plot"></div></div>'
        '<div class="panel"><p class="said">Point at a mark, or click it, for its answers.</p><h3 id="where"></h3>'
        '<p class="said" id="means"></p><label>Prompt <select id="front-prompt"></select></label>'
        '<p id="prompt-text" class="answer"></p><p class="said">Answer, <span id="rewards"></span></p>'
        f'<p id="answer" class="answer"></p></div></div>{triangle if ternary else ""}'
        '<h2>Hypervolume by cost</h2><div class="plot" id="cost-plot"></div>'
    )


def _tabulate(front: MeasuredFront, figures: Mapping[str, MethodFigures]) -> str:
    rows = [COLUMNS, *(_row(front, name, own) for name, own in figures.items())]
    lines = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for row, tag in zip(rows, ["th", *["td"] * len(figures)], strict=True)
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _row(front: MeasuredFront, name: str, own: MethodFigures) -> tuple[str, ...]:
    alone = name == front.baseline
    wins = "; ".join(f"{judge} {format_figure(figure)}" for judge, figure in own.wins.items())
    training = [
        "–" if own.training_seconds is None else f"{own.training_seconds:.0f} s",
        *([] if own.training_gib is None else [f"{own.training_gib:g} GiB"]),
    ]
    return (
        name,
        format_figure(own.hypervolume) + (f" ({own.below} points below the reference)" if own.below else ""),
        "baseline" if alone else format_figure(own.gain, "+"),
        "baseline" if alone else wins,
        f"{own.words:.1f}",
        f"{own.finished:.0%}",
        format_number(own.distinct, ".2f"),
        format_number(own.divergence, ".2f"),
        format_number(own.tokens, ".1f"),
        f"{own.seconds:.2f}",
        ", ".join(training),
    )


def format_figure(figure: Figure, sign: str = "") -> str:
    """Write a figure with its interval; a dash where it is not defined."""
    if math.isnan(figure.value):
        return "–"
    if math.isnan(figure.low):
        return f"{figure.value:{sign}.3f}"
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def format_number(value: float, form: str) -> str:
    """Write a number; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{value:{form}}"


def _collect(
    front: MeasuredFront, points: Sequence[FrontPoint], figures: Mapping[str, MethodFigures]
) -> dict[str, Any]:
    """What ``page.js`` reads. Labels are names of the recipe, which hold no marks."""
    return {
        "objectives": list(front.objectives),
        "axes": [f"{name} ({front.units[name]})" for name in front.objectives],
        "reference": list(front.reference),
        "prompts": list(front.prompts.values()),
        "methods": [
            {
                "name": name,
                "hypervolume": figures[name].hypervolume.plain(),
                "tokens": figures[name].tokens,
                "chain": chain_points(method.means),
                "points": [_collect_point(front, method, each) for each in points if each.method == name],
            }
            for name, method in front.methods.items()
        ],
    }


def _collect_point(front: MeasuredFront, method: MeasuredMethod, point: FrontPoint) -> dict[str, Any]:
    weights = front.grid.get(point.point)
    row = list(method.points).index(point.point)
    return {
        "label": describe_point(point.point),
        "weights": None if weights is None else [weights.get(name, 0.0) for name in front.objectives],
        "means": list(point.means),
        "front": point.front,
        "texts": [answer.text for answer in method.answers[point.point]],
        "rewards": method.rewards[row].tolist(),
    }
