"""The report of one evaluation, and its summary for a terminal."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from tureen_train.evaluation.judging import Row
from tureen_train.evaluation.results import Evaluation
from tureen_train.measures.intervals import Figure
from tureen_train.reports import plots
from tureen_train.reports.document import Page
from tureen_train.reports.run_folder import describe_dropped

SHARES = {"score", "accuracy", "best", "alike", "difference", "flips"}
TITLES = {"pairs": "preference pairs", "rewardbench": "RewardBench", "rewardbench2": "RewardBench 2"}
NAMES = {
    "score": "score",
    "accuracy": "pair accuracy",
    "best": "best of N",
    "margin": "mean margin",
    "flips": "verdicts that change with the order",
    "length_correlation": "reward–length correlation",
    "ece": "ECE",
    "ace": "ACE",
    "mce": "MCE",
}
GLOSSARY = """**Pair accuracy** is the share of comparable pairs whose better answer has the higher reward; equal
rewards count one half. **Best of N** is the share of prompts whose highest reward belongs to a best answer; if several
answers have the highest reward, the prompt counts with the share of best ones among them. **Margin** is the better
answer's reward minus the worse one's. **ECE**, **ACE** and **MCE** are the expected, average and maximum distance
between predicted and observed frequency, over ten bins of probability; each pair counts in both orders. The
**reward–length correlation** is Pearson's correlation of reward and answer length in characters, within prompts.

All intervals are 95 % intervals. Shares of independent items have Wilson's interval. Weighted means of such shares have
an interval that is combined from theirs (MOVER). All other figures have the percentiles of 1,000 bootstrap resamples of
items."""


def write_evaluation_page(found: Evaluation) -> Path:
    """Write ``report.md``, ``report.html`` and their plots into the evaluation's folder. Returns the first path."""
    page = Page(f"{found.name} on {TITLES[found.bench]}")
    page.text(_lead(found))
    page.notes(found.notes)
    page.heading("Figures")
    kept = [name for name in NAMES if name in found.figures and not name.endswith("ce")]
    page.table(
        ("figure", "value", "95 % interval", "of"), [_line(NAMES[name], name, found.figures[name]) for name in kept]
    )
    for title in ("section", "subset", "file"):
        if title in found.tables:
            _breakdown(page, found, title)
    _ratings(page, found)
    _margins(page, found)
    _calibration(page, found)
    _length(page, found)
    page.heading("Model and data")
    page.facts(_facts(found))
    page.heading("How to read this")
    page.text(GLOSSARY)
    return page.write(found.folder)


def _lead(found: Evaluation) -> str:
    first = next(iter(found.figures))
    figure = found.figures[first]
    of = f"{found.data['items']} items, {found.data['pairs']} comparable pairs"
    return f"{NAMES[first].capitalize()} **{format_figure(first, figure)}** ({format_interval(first, figure)}); {of}."


def _line(title: str, name: str, figure: Figure) -> tuple[str, str, str, str]:
    return title, format_figure(name, figure), format_interval(name, figure), str(figure.n)


def _breakdown(page: Page, found: Evaluation, title: str) -> None:
    rows = found.tables[title]
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    main = columns[0]
    page.heading(f"By {title}")
    page.table(
        (title, NAMES[main], "95 % interval", "of", *[NAMES[name] for name in columns[1:]]),
        [
            (
                *_line(name, main, row[main]),
                *[format_figure(each, row[each]) if each in row else "–" for each in columns[1:]],
            )
            for name, row in rows.items()
        ],
    )
    path = found.folder / f"{title}.png"
    plots.plot_intervals(
        select_figure(rows, main), f"{NAMES[main]}, % (95 % interval)", path, 0.5 if main == "accuracy" else None
    )
    page.picture(path, f"{NAMES[main]} by {title}")


def select_figure(rows: Mapping[str, Row], name: str) -> dict[str, Row]:
    """Return the rows that have this figure, each with this figure only."""
    return {title: {name: row[name]} for title, row in rows.items() if name in row}


def _ratings(page: Page, found: Evaluation) -> None:
    if "rating" not in found.tables:
        return
    page.heading("Ratings")
    page.text(
        "Rank correlation of rewards and ratings: over all answers; and over pairs, of the margin and the difference "
        "of the ratings."
    )
    columns = {
        "spearman": "Spearman",
        "kendall": "Kendall τ-b",
        "gap_spearman": "Spearman, pairs",
        "gap_kendall": "Kendall τ-b, pairs",
    }
    rows = [
        (name, *[_with_interval(row[key]) for key in columns], str(row["spearman"].n))
        for name, row in found.tables["rating"].items()
    ]
    page.table(("rating", *columns.values(), "answers"), rows)


def _margins(page: Page, found: Evaluation) -> None:
    page.heading("Margins")
    path = found.folder / "margins.png"
    page.picture(plots.plot_margins(np.array(found.gaps()), path), "margins of all comparable pairs")


def _calibration(page: Page, found: Evaluation) -> None:
    page.heading("Calibration")
    lines = {"σ(margin), as trained": ""}
    curves = {"as trained": np.array(found.gaps())}
    if None in found.model["calibration"].values():
        page.text("The reward has no calibration: it is served raw, and its temperature is 1.")
    else:
        lines["with the artifact's temperature"] = "_scaled"
        curves["as served"] = np.array(found.gaps(logits=True))
    page.table(
        ("probability that the better answer wins", "ECE", "ACE", "MCE"),
        [
            (title, *[_with_interval(found.figures[f"{name}{suffix}"]) for name in ("ece", "ace", "mce")])
            for title, suffix in lines.items()
        ],
    )
    path = found.folder / "reliability.png"
    plots.plot_logit_reliability(curves, path)
    page.picture(path, "observed frequency against predicted probability, over pairs")


def _with_interval(figure: Figure) -> str:
    return f"{format_figure('ece', figure)} ({format_interval('ece', figure)})"


def _length(page: Page, found: Evaluation) -> None:
    page.heading("Length")
    page.text(
        f"A model that rewards length is right more often where the better answer is longer than where it is shorter. "
        f"The correlation of reward and length is {format_figure('r', found.figures['length_correlation'])} "
        f"({format_interval('r', found.figures['length_correlation'])})."
    )
    rows = found.tables["length"]
    page.table(
        ("pairs", "pair accuracy", "95 % interval", "of"),
        [_line(name, "accuracy", row["accuracy"]) for name, row in rows.items()],
    )
    verdict = judge_lengths({name: row["accuracy"] for name, row in rows.items()})
    page.text(f"{verdict}.")
    path = found.folder / "length.png"
    plots.plot_intervals(rows, "pair accuracy, % (95 % interval)", path, 0.5, title=f"Accuracy by length: {verdict}")
    page.picture(path, "pair accuracy by length")


def judge_lengths(rows: Mapping[str, Figure]) -> str:
    """Say whether accuracies by length differ beyond their intervals; without two known ones nothing is said of it."""
    known = [each for each in rows.values() if not math.isnan(each.low) and not math.isnan(each.high)]
    if len(known) < 2:
        return "too few pairs to conclude anything"
    apart = any(one.low > other.high for one in known for other in known)
    return "it depends on the length" if apart else "the intervals overlap, so nothing can be concluded"


def _facts(found: Evaluation) -> dict[str, str]:
    facts = {
        name.replace("_", " "): str(value)
        for name, value in found.model.items()
        if isinstance(value, str | int | float)
    }
    for name, scale in found.model["calibration"].items():
        known = [f"{key} {value:.4g}" for key, value in (scale or {}).items()]
        facts[f"scale of {name}"] = ", ".join(known) or "none: the reward has no calibration"
    for file, about in found.data["files"].items():
        reasons = describe_dropped(about)
        left_out = f"; left out: {reasons}" if reasons else ""
        facts[f"file {file}"] = f"{about['kept']} records, SHA-256 {about['sha256'][:12]}…{left_out}"
    return facts


def make_summary(found: Evaluation) -> Table:
    """Make a table of the figures for a terminal."""
    table = Table("figure", title=f"{found.name} on {TITLES[found.bench]}")
    for title in ("value", "95 % interval", "of"):
        table.add_column(title, justify="right")
    rows = {name: figure for name, figure in found.figures.items() if name in NAMES}
    for name, figure in rows.items():
        table.add_row(*_line(NAMES[name], name, figure))
    for name, row in found.tables.get("section", {}).items():
        table.add_row(*_line(name, "score", row["score"]))
    return table


# --------------------------------------------------------------------------- numbers as text


def format_figure(name: str, figure: Figure) -> str:
    """Format the value of a figure: a share in per cent, any other figure with three decimals."""
    return format_number(name, figure.value)


def format_interval(name: str, figure: Figure) -> str:
    """Format the interval of a figure; a dash if it has none."""
    if figure.low != figure.low:
        return "–"
    return f"{format_number(name, figure.low).removesuffix(' %')} to {format_number(name, figure.high)}"


def format_number(name: str, value: float) -> str:
    """Format a number as :func:`format_figure` formats the figure of this name; a dash for NaN."""
    if value != value:
        return "–"
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.3f}"
