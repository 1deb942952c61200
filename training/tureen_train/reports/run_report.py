"""The report of one training run, made from the files in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tureen_core.calibration import HIGHEST
from tureen_train.reports.document import Page, escape_markdown
from tureen_train.reports.figure_comments import comment_figures, explain_figures
from tureen_train.reports.policy_page import write_policy_sections
from tureen_train.reports.run_folder import RunFolder, describe_dropped, format_cell, read_run, tabulate_figures

PICTURES = {
    "policy": "figures of the policy's answers, by step or round",
    "loss": "training loss over optimiser steps",
    "accuracy": "pair accuracy over optimiser steps, by evaluation file",
    "agreement": "rank correlation of rewards and ratings over optimiser steps, by evaluation file and rating",
    "reliability": "observed frequency against predicted probability, over pairs",
}


def write_run_report(folder: Path) -> Path:
    """Write ``report.md`` and ``report.html`` into a run's folder, also of a run that has not finished.

    Returns:
        The path of ``report.md``.

    Raises:
        BadFile: the folder holds no run, or one of its files is damaged.
    """
    run = read_run(folder)
    page = Page(f"Training run {run.recipe.get('name', run.name)}")
    page.text(_lead(run))
    _figures(page, run)
    _curves(page, run)
    write_policy_sections(page, run)
    _calibration(page, run)
    _data(page, run)
    _texts(page, run)
    _proof(page, run)
    _recipe(page, run)
    return page.write(folder)


def _lead(run: RunFolder) -> str:
    recipe, summary = run.recipe, run.summary()
    model = recipe.get("model") or {}
    subject = {"reward": "A reward model", "expert": "An expert"}.get(str(recipe.get("kind")), "A model")
    objective = f" for {escape_markdown(str(recipe['objective']))}" if recipe.get("objective") else ""
    lora = f"LoRA of rank {model['lora']['rank']}" if model.get("lora") else "all weights"
    sentences = [f"{subject}{objective} on {escape_markdown(str(model.get('base', 'an unknown base')))} ({lora})."]
    if "train_runtime" in summary:
        rounds = sum("train_runtime" in entry for entry in run.history)
        if rounds > 1:  # each tells the time and the loss of its own training
            sentences.append(f"{summary['steps']} optimiser steps in {rounds} rounds.")
        else:
            sentences.append(f"{summary['steps']} optimiser steps in {_duration(summary['train_runtime'])}")
            sentences[-1] += f", mean loss {summary['train_loss']:.4g}." if "train_loss" in summary else "."
    elif run.history:
        sentences.append(f"The run has not finished: {summary['steps']} optimiser steps so far.")
    return " ".join(sentences)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if count]
    return " ".join(parts[:2]) or "less than a second"


def _figures(page: Page, run: RunFolder) -> None:
    page.heading("Held-out figures")
    tables = tabulate_figures(run.metrics)
    names = list(dict.fromkeys(name for each in tables.values() for name in each))
    if not names:
        page.text("There is no evaluation: the recipe holds no data out, or the run has not finished.")
        return
    page.table(
        ("figure", *tables), [(name, *[format_cell(each.get(name)) for each in tables.values()]) for name in names]
    )
    page.notes(explain_figures(names))
    for file, figures in tables.items():
        for told in comment_figures(figures):
            page.text(f"**{escape_markdown(file)}**: {told}")


def _curves(page: Page, run: RunFolder) -> None:
    there = {path.stem: path for path in sorted(run.folder.glob("*.png"))}
    if there:
        page.heading("Curves")
    for name in [*[name for name in PICTURES if name in there], *[name for name in there if name not in PICTURES]]:
        page.picture(there[name], PICTURES.get(name, name.replace("_", " ")))


def _calibration(page: Page, run: RunFolder) -> None:
    scales = {str(run.recipe.get("objective", "reward")): run.document("calibration.json")}
    objectives = run.document("objectives.json")
    if objectives:
        scales = {each["name"]: each.get("calibration") or {} for each in objectives}
    bare = [name for name, scale in scales.items() if not scale] if objectives else []
    scales = {name: scale for name, scale in scales.items() if scale}
    if not scales and not bare:
        return
    page.heading("Scale of the rewards")
    if bare:
        told = f"Without a calibration, since no answers were held out: {', '.join(bare)}. Served raw."
        page.text(escape_markdown(told))
    if not scales:
        return
    page.text(
        "Calibrated rewards are (raw − mean) / deviation; σ(Δ / temperature) is the probability that an answer is "
        "preferred whose raw reward is higher by Δ."
    )
    page.table(
        ("objective", "mean", "deviation", "temperature"),
        [
            (name, *[format_cell(scale.get(key)) for key in ("mean", "std", "temperature")])
            for name, scale in scales.items()
        ],
    )
    about = run.document("account.json").get("calibration") or {}
    told = " ".join(filter(None, (_say_whose_scale(run, list(scales), about), _say_what_calibrated(about))))
    if told:
        page.text(told)


def _say_whose_scale(run: RunFolder, names: Sequence[str], about: Mapping[str, Any]) -> str:
    """Say on what the scale was fitted: of rewards for ratings, the mean and deviation are those of training."""
    files = ", ".join(about.get("files") or [])
    if (run.recipe.get("loss") or {}).get("method") != "attributes":
        one = f"Mean, deviation and temperature are those of the evaluation files: {files}."
        return escape_markdown(one) if files else ""
    told = ["Mean and deviation are those of the training ratings, in the unit of the raw rewards."]
    unpaired = [name for name in names if not any(f"{name}_accuracy" in each for each in run.metrics.values())]
    if files and len(unpaired) < len(names):
        told.append(f"Temperatures are fitted on the rated pairs of answers of the evaluation files: {files}.")
    if unpaired:
        told.append(
            f"{', '.join(unpaired)}: no held-out record has two answers with different ratings, so the temperature is "
            "1, and probabilities are not calibrated; to fit it, write the answers to one prompt into one record."
        )
    return escape_markdown(" ".join(told))


def _say_what_calibrated(about: Mapping[str, Any]) -> str:
    told = [
        f"{name} is not calibrated: its temperature ended at the bound of {HIGHEST:g}, so on these files it is worse "
        "than chance."
        for name in about.get("worse_than_chance") or []
    ]
    told += [
        f"{name} ranks all {count} pairs right. So many pairs cannot tell a probability above "
        f"{(count + 1) / (count + 2):.3g} from certainty, so the temperature is that of a prior, and the calibration "
        "errors here say nothing; evaluate the model on more pairs."
        for name, count in (about.get("flawless") or {}).items()
    ]
    return escape_markdown(" ".join(filter(None, told)))


def _texts(page: Page, run: RunFolder) -> None:
    texts = run.document("account.json").get("texts")
    if not texts:
        return
    page.heading("Texts")
    page.text(
        "What is left out of training is left out of the loss. In evaluation a pair of equal texts stays, and counts ½."
    )
    rows = [
        (
            name,
            f"{format_cell(about['kept'])} {about['unit']}",
            ", ".join(f"{count} {reason}" for reason, count in about["left_out"].items()) or "nothing",
            format_cell(about["truncated"]),
        )
        for name, about in texts.items()
    ]
    page.table(("texts", "to learn from", "left out", "texts cut"), rows, words=True)


def _data(page: Page, run: RunFolder) -> None:
    files = run.document("data.json")
    if not files:
        return
    page.heading("Data")
    rows = [
        (
            file,
            format_cell(about.get("kept")),
            *(format_cell(about.get(name)) for name in ("comparable", "tied", "unjudged")),
            ", ".join(about.get("forms", {})),
            describe_dropped(about) or "nothing",
            f"{str(about.get('sha256', ''))[:12]}…",
        )
        for file, about in files.items()
    ]
    heads = ("file", "records kept", "pairs", "all answers tie", "not compared", "form", "left out", "SHA-256")
    page.table(heads, rows, words=True)
    columns = [
        (file, column, treatment, str(count))
        for file, about in files.items()
        for column, treatments in about.get("columns", {}).items()
        for treatment, count in treatments.items()
    ]
    if columns:
        page.text("These columns are not the form's own:")
        page.table(("file", "column", "what was done with it", "records"), columns, words=True)


def _proof(page: Page, run: RunFolder) -> None:
    proof = run.document("proof.json")
    live, again = (_flat(proof.get(name)) for name in ("live", "reread"))
    if not live or not again:
        return
    page.heading("Proof of the saved model")
    apart = max(abs(one - other) for one, other in zip(live, again, strict=True))
    page.text(
        f"The saved weights were loaded again and scored the probes: {len(live)} numbers. They differ from the trained "
        f"model's numbers by at most {apart:.2g}; the numbers span {max(live) - min(live):.3g}."
    )


def _flat(readings: object) -> list[float]:
    """The probes' numbers as the model is served, in one list; none from a run of an earlier version."""
    rows = readings.get("1", []) if isinstance(readings, dict) else []
    return [value for row in rows for value in row]


def _recipe(page: Page, run: RunFolder) -> None:
    if run.recipe:
        page.heading("Recipe")
        page.text("With all defaults filled in. `tureen-train run` runs this recipe unchanged.")
        page.code(yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True))
    versions = run.document("versions.json")
    if versions:
        page.heading("Libraries")
        page.facts({name: str(version) for name, version in versions.items()})
