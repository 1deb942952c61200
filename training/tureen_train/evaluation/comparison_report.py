"""The report that compares several evaluations, or several training runs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tureen.records.schema import BadFile, BadOption
from tureen_train.evaluation.evaluation_page import NAMES, TITLES, format_figure, format_interval, select_figure
from tureen_train.evaluation.results import RESULTS, AnsweredItem, Evaluation, read_results
from tureen_train.measures.agreement import measure_agreement
from tureen_train.measures.intervals import Figure, bootstrap_interval
from tureen_train.measures.metrics import Array
from tureen_train.reports import plots
from tureen_train.reports.document import Page, escape_markdown
from tureen_train.reports.run_folder import RunFolder, flatten_figures, flatten_keys, format_cell, is_run, read_run

Key = tuple[str, str]


def compare_folders(folders: Sequence[Path], out: Path) -> Path:
    """Compare evaluations, or training runs, and write ``report.md`` and ``report.html`` into ``out``.

    Returns:
        The path of ``report.md``.

    Raises:
        BadOption: there are fewer than two folders, or some are evaluations and others are training runs.
        BadFile: a folder is neither.
    """
    if len(folders) < 2:
        raise BadOption("FOLDER: name two folders or more to compare")
    judged = [(folder / RESULTS).is_file() for folder in folders]
    if any(judged) and not all(judged):
        odd = folders[judged.index(False)]
        raise BadOption(
            f"{odd} is not an evaluation, but other folders are: name only evaluations, or only training runs"
        )
    out.mkdir(parents=True, exist_ok=True)
    if all(judged):
        return compare_evaluations([read_results(folder) for folder in folders], out)
    for folder in folders:
        if not is_run(folder):
            raise BadFile(
                f"{folder} has neither an evaluation ({RESULTS}) nor a training run (recipe.yaml); name another folder"
            )
    return compare_runs([read_run(folder) for folder in folders], out)


# --------------------------------------------------------------------------- evaluations


def compare_evaluations(found: Sequence[Evaluation], out: Path) -> Path:
    """Compare evaluations: figures, paired differences, the parts of the benchmark, and agreement."""
    benches = {each.bench for each in found}
    if len(benches) > 1:
        raise BadOption(f"the evaluations are on {' and '.join(sorted(benches))}: compare evaluations on one benchmark")
    names = label_folders([each.name for each in found], [each.folder for each in found])
    page = Page(f"{len(found)} models on {TITLES[found[0].bench]}")
    page.text(f"Compared: {', '.join(map(escape_markdown, names))}.")
    page.heading("Figures")
    kept = [name for name in found[0].figures if all(name in each.figures for each in found)]
    page.table(
        ("figure", *names), [(_title(name), *[_cell(name, each.figures[name]) for each in found]) for name in kept]
    )
    _differences(page, found, names)
    for title in ("section", "subset", "file", "length"):
        _parts(page, found, names, title, out)
    _agreement(page, found, names, out)
    return page.write(out)


def label_folders(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the names. A name that occurs several times gets its folder added, in brackets."""
    return [
        name if names.count(name) == 1 else f"{name} ({folder.resolve().name})"
        for name, folder in zip(names, folders, strict=True)
    ]


def _title(name: str) -> str:
    return NAMES[name] if name in NAMES else f"{NAMES[name.removesuffix('_scaled')]}, with temperature"


def _cell(name: str, figure: Figure) -> str:
    return f"{format_figure(name, figure)} ({format_interval(name, figure)})"


def measure_difference(first: Evaluation, second: Evaluation) -> Figure:
    """Compute the second model's accuracy minus the first's, on the items that both evaluated.

    The interval is of a paired bootstrap over these items; ``n`` is their number. On preference pairs an item weighs as
    many pairs as it has; on the other benchmarks all items weigh the same.
    """
    one, other = index_answers(first), index_answers(second)
    shared = [key for key in one if key in other and one[key].credit is not None]
    weights = np.array([one[key].pairs if first.bench == "pairs" else 1 for key in shared], dtype=np.float64)
    gain = np.array([(other[key].credit or 0.0) - (one[key].credit or 0.0) for key in shared], dtype=np.float64)
    return bootstrap_interval(lambda places: _weighted(gain[places], weights[places]), len(shared))


def _weighted(values: Array, weights: Array) -> float:
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total else float("nan")


def index_answers(found: Evaluation) -> dict[Key, AnsweredItem]:
    """Index the items of an evaluation by id and content, so that only equal items are compared."""
    return {(row.id, row.digest): row for row in found.answered}


def _differences(page: Page, found: Sequence[Evaluation], names: Sequence[str]) -> None:
    page.heading(f"Against {names[0]}")
    credit = "best-of-N credit" if found[0].bench == "rewardbench2" else "pair accuracy"
    page.text(
        f"Difference of {credit} on the items that both models scored, with the 95 % interval of a paired bootstrap "
        "over items. If the interval does not contain zero, such a difference rarely arises by chance."
    )
    rows = [(name, measure_difference(found[0], each)) for name, each in zip(names[1:], found[1:], strict=True)]
    page.table(
        ("model", "difference", "95 % interval", "shared items"),
        [(name, _points(each.value), _between(each), str(each.n)) for name, each in rows],
    )


def _points(value: float) -> str:
    return "–" if value != value else f"{100 * value:+.1f} points"


def _between(figure: Figure) -> str:
    return "–" if figure.low != figure.low else f"{100 * figure.low:+.1f} to {100 * figure.high:+.1f}"


def _parts(page: Page, found: Sequence[Evaluation], names: Sequence[str], title: str, out: Path) -> None:
    """Compare one breakdown, if every evaluation has it."""
    if not all(title in each.tables for each in found):
        return
    main = next(iter(next(iter(found[0].tables[title].values()))))
    tables = [select_figure(each.tables[title], main) for each in found]
    rows = list(dict.fromkeys(row for table in tables for row in table))
    page.heading(f"By {title}")
    page.table(
        (title, *names),
        [(row, *[_cell(main, table[row][main]) if row in table else "–" for table in tables]) for row in rows],
    )
    drawn = {
        row: {name: table[row][main] for name, table in zip(names, tables, strict=True) if row in table} for row in rows
    }
    path = out / f"{title}.png"
    plots.plot_intervals(drawn, f"{NAMES[main]}, % (95 % interval)", path, 0.5 if main == "accuracy" else None)
    page.picture(path, f"{NAMES[main]} by {title}")


def _agreement(page: Page, found: Sequence[Evaluation], names: Sequence[str], out: Path) -> None:
    """Report the agreement of the models on the items that all of them scored."""
    tables = [index_answers(each) for each in found]
    shared = [key for key in tables[0] if all(key in table for table in tables[1:])]
    page.heading("Agreement")
    if not shared:
        page.text("The models have no item in common.")
        return
    rewards = [[table[key].rewards for key in shared] for table in tables]
    pairs = {(i, j): measure_agreement(rewards[i], rewards[j]) for i, j in combinations(range(len(found)), 2)}
    page.text(
        f"Over the {len(shared)} items that all models scored. **Alike** is the share of pairs of answers on which "
        "both models give the same verdict. **Kappa** is Cohen's kappa: 0 is chance, 1 is full agreement. **Margins** "
        "is Pearson's correlation of the pairs' margins. **Spearman** and **Pearson** are correlations of all rewards."
    )
    page.table(
        ("models", "alike", "kappa", "margins", "Spearman", "Pearson"),
        [(f"{names[i]} – {names[j]}", *_agreed(each)) for (i, j), each in pairs.items()],
    )
    if len(found) > 2:
        square = np.eye(len(found))
        for (i, j), each in pairs.items():
            square[i, j] = square[j, i] = each["alike"].value
        page.picture(plots.plot_matrix(square, names, out / "agreement.png"), "share of pairs with the same verdict")


def _agreed(found: Mapping[str, Figure]) -> list[str]:
    both = [_cell(name, found[name]) for name in ("alike", "kappa")]
    return both + [format_figure(name, found[name]) for name in ("margins", "spearman", "pearson")]


# --------------------------------------------------------------------------- training runs


def compare_runs(runs: Sequence[RunFolder], out: Path) -> Path:
    """Compare training runs: final figures with differences, curves in one plot, and the differences of the recipes."""
    names = label_folders([run.name for run in runs], [run.folder.parent for run in runs])
    page = Page(f"{len(runs)} training runs")
    page.text(f"Compared: {', '.join(map(escape_markdown, names))}; differences are against the first.")
    page.heading("Held-out figures")
    page.table(("figure", *names), list(_run_rows(runs)))
    page.heading("Curves")
    losses = {name: run.losses() for name, run in zip(names, runs, strict=True)}
    _overlay(page, losses, "loss", "training loss", out / "loss.png")
    for file in dict.fromkeys(file for run in runs for file in run.accuracies()):
        series = {name: run.accuracies().get(file, []) for name, run in zip(names, runs, strict=True)}
        _overlay(page, series, "pair accuracy", f"pair accuracy on {file}", out / f"accuracy-{_safe(file)}.png", 0.5)
    page.heading("Differences of the recipes")
    page.table(("key", *names), list(_recipe_rows(runs)), words=True)
    return page.write(out)


def _run_rows(runs: Sequence[RunFolder]) -> list[tuple[str, ...]]:
    tables = [_flatten_run(run) for run in runs]
    rows = []
    for name in dict.fromkeys(name for table in tables for name in table):
        first = tables[0].get(name)
        rows.append((name, format_cell(first), *[_against(table.get(name), first) for table in tables[1:]]))
    return rows


def _flatten_run(run: RunFolder) -> dict[str, Any]:
    return {
        f"{file} {name}": value for file, each in run.metrics.items() for name, value in flatten_figures(each).items()
    }


def _against(value: float | None, first: float | None) -> str:
    return format_cell(value) if value is None or first is None else f"{format_cell(value)} ({value - first:+.3g})"


def _overlay(
    page: Page,
    series: Mapping[str, Sequence[tuple[int, float]]],
    label: str,
    says: str,
    path: Path,
    floor: float | None = None,
) -> None:
    drawn = {name: points for name, points in series.items() if points}
    if drawn:
        page.picture(plots.plot_lines(drawn, label, path, floor), says)


def _safe(name: str) -> str:
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in name)


def _recipe_rows(runs: Sequence[RunFolder]) -> list[tuple[str, ...]]:
    recipes = [dict(flatten_keys(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    apart = [key for key in keys if len({str(recipe.get(key, "–")) for recipe in recipes}) > 1]
    return [(key, *[format_cell(recipe.get(key)) for recipe in recipes]) for key in apart]
