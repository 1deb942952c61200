"""The report of a measured family: a table of experts and rewards, and the sweeps of all pairs as one plot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tureen_train.families.answers import MeasuredAnswer
from tureen_train.families.figures import (
    ExpertFigures,
    MeasuredFamily,
    average_reward,
    average_sweep,
    correlate_sweep,
    describe_texts,
)
from tureen_train.families.mixes import BASE, Sweep, name_mix
from tureen_train.measures.intervals import Figure
from tureen_train.measures.non_finite import replace_non_finite
from tureen_train.reports.document import Page, escape_markdown
from tureen_train.reports.plots import ACCENTS, make_panels, save_figure

SWEEPS = "sweeps.png"
CAPTION = (
    "Mean calibrated reward of both ends, with standard errors, against the weight of the second; in brackets "
    "Spearman's correlation with the own weight"
)
SHOWN = 3  # prompts whose texts the page shows


def write_family_report(family: MeasuredFamily, folder: Path) -> Path:
    """Write ``results.json``, ``sweeps.png`` and the report. Returns the path of the HTML page."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = family.compare()
    (folder / "results.json").write_text(json.dumps(_dump(family, figures), indent=1) + "\n", encoding="utf-8")
    page = Page(f"{family.name}: its experts, measured")
    count = len(next(iter(family.answers.values())))
    page.text(
        f"Each expert alone and the bare base answered the same {count} held-out prompts. A gain is the mean "
        "difference of a calibrated reward from the base's, with the 95 % interval of the paired bootstrap."
    )
    page.heading("Mean calibrated rewards")
    page.table(("", *family.objectives), _means(family))
    page.heading("Gains over the base")
    page.table(("expert", *family.objectives, "second judge"), [_gains(name, own) for name, own in figures.items()])
    page.heading("Texts")
    page.table(("", "tokens", "finished", "distinct-2", "KL per token"), _texts(family, figures))
    if family.sweeps:
        page.heading("Sweeps")
        plot_sweeps(family, folder / SWEEPS)
        page.picture(folder / SWEEPS, CAPTION)
        page.table(
            ("from", "to", "Spearman of the first", "of the second"), [_sweep(family, each) for each in family.sweeps]
        )
    page.heading("Answers")
    for prompt in list(family.prompts)[:SHOWN]:
        page.text(f"**{escape_markdown(family.prompts[prompt])}**")
        page.facts({mix: _text_of(family.answers[mix], prompt) for mix in _shown(family)})
    return page.write(folder)


def _means(family: MeasuredFamily) -> list[list[str]]:
    return [
        [mix, *(f"{average_reward(family.answers[mix], name):+.2f}" for name in family.objectives)]
        for mix in _shown(family)
    ]


def _gains(name: str, own: ExpertFigures) -> list[str]:
    judged = "–" if own.judged is None else _interval(own.judged)
    return [name, *(_interval(figure) for figure in own.gains.values()), judged]


def _interval(figure: Figure) -> str:
    return f"{figure.value:+.2f} [{figure.low:+.2f}, {figure.high:+.2f}]"


def _texts(family: MeasuredFamily, figures: Mapping[str, ExpertFigures]) -> list[list[str]]:
    bare = describe_texts(family.answers[BASE])
    rows = [[BASE, f"{bare['tokens']:.1f}", f"{bare['finished']:.0%}", f"{bare['distinct']:.2f}", "–"]]
    return rows + [
        [name, f"{own.tokens:.1f}", f"{own.finished:.0%}", f"{own.distinct:.2f}", f"{own.kl:.3f}"]
        for name, own in figures.items()
    ]


def _sweep(family: MeasuredFamily, sweep: Sweep) -> list[str]:
    found = correlate_sweep(family.answers, sweep)
    return [sweep.first, sweep.second, f"{found[sweep.first]:+.3f}", f"{found[sweep.second]:+.3f}"]


def _shown(family: MeasuredFamily) -> list[str]:
    return [BASE, *(name_mix({name: 1.0}) for name in family.objectives)]


def _text_of(answers: Sequence[MeasuredAnswer], prompt: str) -> str:
    return next(each.text for each in answers if each.prompt == prompt)


def _dump(family: MeasuredFamily, figures: Mapping[str, ExpertFigures]) -> Any:
    """The content of ``results.json``."""
    return replace_non_finite(
        {
            "family": family.name,
            "prompts": len(family.prompts),
            "base": describe_texts(family.answers[BASE]),
            "means": {
                mix: {name: average_reward(family.answers[mix], name) for name in family.objectives}
                for mix in _shown(family)
            },
            "experts": {
                name: {
                    "gains": {reward: figure.plain() for reward, figure in own.gains.items()},
                    "judged": own.judged.plain() if own.judged else None,
                    "tokens": own.tokens,
                    "finished": own.finished,
                    "distinct": own.distinct,
                    "kl": own.kl,
                }
                for name, own in figures.items()
            },
            "sweeps": [
                {
                    "first": each.first,
                    "second": each.second,
                    "weights": list(each.weights),
                    "means": {end: average_sweep(family.answers, each, end) for end in (each.first, each.second)},
                    "spearman": correlate_sweep(family.answers, each),
                }
                for each in family.sweeps
            ],
        }
    )


def plot_sweeps(family: MeasuredFamily, path: Path) -> Path:
    """Plot all sweeps, one panel each: the mean rewards of both ends with their standard errors."""
    figure, panels = make_panels(len(family.sweeps))
    for sweep, panel in zip(family.sweeps, panels, strict=True):
        found = correlate_sweep(family.answers, sweep)
        for number, end in enumerate((sweep.first, sweep.second)):
            table = np.array([[each.rewards[end] for each in family.answers[name_mix(mix)]] for mix in sweep.mixes])
            errors = table.std(1, ddof=1) / np.sqrt(table.shape[1])
            label = f"{end} ({found[end]:+.2f})"
            panel.errorbar(sweep.weights, table.mean(1), errors, label=label, color=ACCENTS[number], marker="o", ms=3)
        panel.set_xlabel(f"weight of {sweep.second}")
        panel.legend(loc="best", frameon=False, fontsize=8)
    figure.supylabel("mean calibrated reward", fontsize=9)
    return save_figure(figure, path)
