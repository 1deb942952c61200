"""Writes a finished run as an artifact: standard files, a model card, and a manifest with probes."""

import shutil
from pathlib import Path
from typing import Any

from tureen_core.artifact import Artifact, Manifest, seal_artifact
from tureen_train.config import Recipe
from tureen_train.reports.run_folder import tabulate_figures
from tureen_train.runs.artifact_kind import ArtifactKind
from tureen_train.runs.folder import read_finished_run


def export_artifact(folder: Path, kind: ArtifactKind) -> Artifact:
    """Write ``<folder>/artifact`` from a finished run's folder, in place of an earlier one.

    It is written beside and gets its name when it is whole: weights without their manifest would be read as those of
    another library.

    Raises:
        RecipeError: the run has not finished: a file it should have written is not there.
    """
    run, base = read_finished_run(folder)
    out, part = folder / "artifact", folder / "artifact.part"
    shutil.rmtree(part, ignore_errors=True)  # of an export that was broken
    part.mkdir()
    manifest = kind.write(run, folder, base, part)
    (part / "README.md").write_text(_card(manifest, run))
    sealed = seal_artifact(part, manifest)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    return Artifact(out, sealed.manifest)


def _card(manifest: Manifest, run: Recipe) -> str:
    """Write the model card: kind, base, held-out figures and licences."""
    named = ", ".join(f"`{each.name}`" for each in manifest.objectives) or f"`{run.objective}`"
    lines = [f"# {manifest.name}", "", f"A Tureen {manifest.kind} for {named} on `{run.model.base}`.", ""]
    rows = tabulate_figures({name: each for name, each in manifest.training.metrics.items() if isinstance(each, dict)})
    if rows:
        keys = sorted({key for each in rows.values() for key in each})
        lines += ["| figure | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
        lines += [f"| {key} | " + " | ".join(_cell(each.get(key)) for each in rows.values()) + " |" for key in keys]
        lines += [""]
    lines += [
        f"`{each.name}` is not calibrated: on its evaluation pairs it is worse than chance.\n"
        for each in manifest.objectives
        if each.calibration and each.calibration.worse_than_chance
    ]
    lines += [
        f"`{each.name}` has no calibration: it is served raw, and cannot be added to other rewards.\n"
        for each in manifest.objectives
        if each.calibration is None
    ]
    lines += [f"Licence of the training data: {licence}" for licence in run.list_licences() or ("not stated",)]
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"
