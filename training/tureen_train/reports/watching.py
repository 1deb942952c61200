"""``tureen-train watch``: the curves of a run in the terminal, while it trains."""

import time
from collections.abc import Iterable
from pathlib import Path

import typer
from rich.live import Live
from rich.table import Table

from tureen.records.schema import BadFile
from tureen_train.faults import exit_on_user_error
from tureen_train.reports.policy_figures import read_policy_steps
from tureen_train.reports.run_folder import Points, RunFolder, read_run
from tureen_train.terminal import make_console

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48  # characters of a curve
EVERY = 2.0  # seconds between two looks


def show_curves(folder: Path, once: bool) -> None:
    """Show a run until it has finished, or once. Ctrl-C ends the watching, not the run."""
    with exit_on_user_error():
        run = read_run(folder)
        try:
            with Live(tabulate_curves(run), console=make_console(), auto_refresh=False) as live:
                while not (once or is_finished(folder)):
                    time.sleep(EVERY)
                    run = _read_again(folder, run)
                    live.update(tabulate_curves(run), refresh=True)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _read_again(folder: Path, before: RunFolder) -> RunFolder:
    """Read a run; where its last line is being written at this moment, what was read before."""
    try:
        return read_run(folder)
    except BadFile:
        return before


def is_finished(folder: Path) -> bool:
    """Whether a run has exported its artifact."""
    return (folder / "artifact" / "tureen.json").is_file()


def tabulate_curves(run: RunFolder) -> Table:
    """Make a table with a row for each curve: its name, a line of bars, its first and its last value."""
    last = run.summary()["steps"]
    state = f"finished after {last} steps" if is_finished(run.folder) else f"step {last}"
    table = Table("", "curve", title=f"{run.recipe.get('name', run.name)}: {state}")
    for column in ("first", "last", "at step"):
        table.add_column(column, justify="right")
    for name, points in list_curves(run):
        values = [value for _, value in points]
        numbers = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        table.add_row(name, draw_bars(values), *numbers, str(points[-1][0]))
    if not table.row_count:
        table.add_row("nothing is logged yet", "", "", "", "")
    return table


def list_curves(run: RunFolder) -> Iterable[tuple[str, Points]]:
    """List what a run has logged: the loss, the accuracy of each evaluation file, and a policy's rewards."""
    found = {"loss": run.losses()} | {f"accuracy, {name}": points for name, points in run.accuracies().items()}
    found |= {f"rank correlation, {name}": points for name, points in run.agreements().items()}
    steps = read_policy_steps(run.history)
    for name, values in (*steps.rewards.items(), *steps.figures.items()):
        found[name] = [point for point in zip(steps.numbers, values, strict=True) if point[1] == point[1]]
    return [(name, points) for name, points in found.items() if points]


def draw_bars(values: list[float], width: int = WIDTH) -> str:
    """Draw a line of bars, at most ``width``: each is the mean of as many values, from the lowest to the highest."""
    count = min(width, len(values))
    cuts = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in zip(cuts, cuts[1:], strict=False)]
    low, span = min(means), max(means) - min(means)
    if len(means) == 1:
        return f"{BARS[0]} one point is no curve"
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1)) if span else 0] for value in means)
