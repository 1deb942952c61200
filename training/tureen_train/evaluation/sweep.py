"""A sweep: the mean reward of each objective while the weight moves from one expert to another.

A running server is used through the client. For each prompt there is one chat request with all weights, and one score
request with all texts.
"""

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from tureen import Client
from tureen_train.measures.correlation import compute_spearman
from tureen_train.reports.plots import ACCENTS, make_axes, save_figure
from tureen_train.terminal import show_progress


@dataclass(frozen=True)
class WeightSweep:
    """The texts and calibrated rewards of a sweep between two experts.

    Attributes:
        first: the expert with the weight 1 − w.
        second: the expert with the weight w.
        weights: the W weights of the second expert.
        texts: ``texts[w][p]`` is the text at ``weights[w]`` for prompt p.
        rewards: ``rewards[objective][w][p]`` is its calibrated reward; its raw one if the objective has no calibration.
        raw: the objectives without a calibration.
    """

    first: str
    second: str
    weights: list[float]
    texts: list[list[str]]
    rewards: Mapping[str, list[list[float]]]
    raw: Collection[str] = ()

    def means(self, objective: str) -> list[float]:
        """Return the mean reward over the prompts at each weight."""
        return [float(np.mean(row)) for row in self.rewards[objective]]

    def unit(self) -> str:
        """Return what the means are means of, for titles."""
        bare = f" (raw of {', '.join(sorted(self.raw))}, without a calibration)" if self.raw else ""
        return f"mean calibrated reward{bare}"

    def spearman(self) -> dict[str, float]:
        """Compute the rank correlation of each objective's mean reward and weight; NaN if the mean is constant."""
        rising = {self.first: [1 - weight for weight in self.weights], self.second: self.weights}
        return {name: compute_spearman(np.array(self.means(name)), np.array(own)) for name, own in rising.items()}


def sweep_weights(
    client: Client, prompts: Sequence[str], first: str, second: str, steps: int, tokens: int, model: str | None
) -> WeightSweep:
    """Generate a text for each prompt at ``steps`` weights from ``first`` to ``second``, greedily, and score all texts.

    Raises:
        TureenError: the server refuses a request, or no expert or reward of that name is loaded.
    """
    weights = [round(number / (steps - 1), 4) for number in range(steps)]
    points = [{first: round(1 - weight, 4), second: weight} for weight in weights]
    texts: list[list[str]] = [[] for _ in points]
    rewards: dict[str, list[list[float]]] = {name: [[] for _ in points] for name in (first, second)}
    raw: set[str] = set()
    with show_progress() as progress:
        for prompt in progress.track(prompts, description="sweeping"):
            messages = [{"role": "user", "content": prompt}]
            reply = client.sweep(messages, points, model=model, max_tokens=tokens, temperature=0.0)
            answers = [choice.message.content or " " for choice in reply.choices]
            scored = client.score([{"prompt": prompt, "candidates": answers}], rewards=[first, second])
            for number, candidate in enumerate(scored.data[0].candidates):
                texts[number].append(answers[number])
                for name in rewards:
                    assert candidate.scores is not None
                    score = candidate.scores[name]
                    rewards[name][number].append(score.scaled)
                    raw |= {name} if score.calibrated is None else set()
    return WeightSweep(first, second, weights, texts, rewards, raw)


def make_table(result: WeightSweep) -> Table:
    """Make a table of the mean rewards by weight, with the rank correlations in the footer."""
    correlations = result.spearman()
    names = list(result.rewards)
    title = f"{result.unit()} of {len(result.texts[0])} prompts"
    table = Table(f"weight of {result.second}", title=title, show_footer=True)
    table.columns[0].footer = "Spearman with its own weight"
    for name in names:
        table.add_column(name, f"{correlations[name]:+.2f}", justify="right")
    for number, weight in enumerate(result.weights):
        table.add_row(f"{weight:g}", *[f"{result.means(name)[number]:+.3f}" for name in names])
    return table


def write_sweep(result: WeightSweep, prompts: Sequence[str], folder: Path) -> None:
    """Write ``sweep.png``, ``sweep.csv`` (means and standard errors) and ``texts.jsonl`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _plot(result, folder / "sweep.png")
    with (folder / "sweep.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [f"weight of {result.second}", *[f"{name} {what}" for name in result.rewards for what in ("mean", "se")]]
        )
        for number, weight in enumerate(result.weights):
            columns = [result.rewards[name][number] for name in result.rewards]
            rows.writerow([weight, *[round(value, 5) for column in columns for value in _mean_and_error(column)]])
    with (folder / "texts.jsonl").open("w") as file:
        for number, weight in enumerate(result.weights):
            for prompt, text in zip(prompts, result.texts[number], strict=True):
                file.write(json.dumps({"weight": weight, "prompt": prompt, "text": text}) + "\n")


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _plot(result: WeightSweep, path: Path) -> None:
    figure, panel = make_axes()
    correlations = result.spearman()
    for number, name in enumerate(result.rewards):
        means, errors = zip(*(_mean_and_error(row) for row in result.rewards[name]), strict=True)
        label = f"{name} (Spearman {correlations[name]:+.2f} with its weight)"
        panel.errorbar(result.weights, means, errors, label=label, color=ACCENTS[number], marker="o", capsize=2)
    panel.set_xlabel(f"weight of {result.second} (the rest is {result.first}'s)")
    panel.set_ylabel(f"{result.unit()}, {len(result.texts[0])} held-out prompts")
    panel.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )  # above the plot, where it covers no point
    save_figure(figure, path)
