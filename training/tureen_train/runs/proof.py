"""The end of a run: the saved model is read again, compared with the trained one, and only then exported.

After a sharded run (ZeRO) all that happens in a fresh process: in the old one ``from_pretrained`` would enter
DeepSpeed's partitioning again and wait for ranks that do not come.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tureen_core.artifact import MANIFEST, Artifact, ArtifactError, Manifest
from tureen_core.probe_readings import Readings, Rows
from tureen_train.reports.run_report import write_run_report
from tureen_train.runs.artifact_kind import ArtifactKind
from tureen_train.runs.export import export_artifact
from tureen_train.runs.folder import read_finished_run
from tureen_train.runs.probe_readings import check_same
from tureen_train.runs.rereading import choose_dtype

PROOF = "proof.json"
FRESH_PROCESS = "tureen_train.prove"


class ProofError(ArtifactError):
    """The saved model is not the trained one."""


def finish_run(folder: Path, kind: ArtifactKind, live: Readings, sharded: bool = False) -> Artifact:
    """Prove a finished run's folder and export it.

    Args:
        folder: the run's, with everything but ``artifact/`` in it.
        live: the trained model's readings of the probes, see :func:`read_at_weights`.
        sharded: whether DeepSpeed has run in this process.

    Raises:
        ProofError: the saved model, read again, gives other numbers, or cannot be read.
    """
    _write_proof(folder, {"live": live})
    if not sharded:
        return prove_and_export(folder, kind)
    outcome = subprocess.run([sys.executable, "-m", FRESH_PROCESS, str(folder)], stderr=subprocess.PIPE, text=True)
    if outcome.returncode:
        said = outcome.stderr.strip().splitlines() or [f"exit status {outcome.returncode}"]
        raise ProofError(f"{folder}: {said[-1]}")
    manifest = Manifest.model_validate_json((folder / "artifact" / MANIFEST).read_bytes())
    return Artifact(folder / "artifact", manifest)


def prove_and_export(folder: Path, kind: ArtifactKind) -> Artifact:
    """Prove and export in this process, and write the run's report."""
    prove_save(folder, kind)
    artifact = export_artifact(folder, kind)
    write_run_report(folder)
    return artifact


def prove_save(folder: Path, kind: ArtifactKind) -> None:
    """Compare the saved model's readings of the probes with those in ``proof.json``, and add them to that file.

    They are compared for each objective, at each weight of the adapter, in the precision of training; the tolerances
    are those of :mod:`tureen_core.tolerance`.

    Raises:
        ProofError: the saved model is not the trained one.
    """
    live = read_live(folder)
    run, base = read_finished_run(folder)
    again = kind.reread_probes(run, folder, base)
    _write_proof(folder, {"live": live, "reread": again}, process=os.getpid())
    try:
        check_same(live, again, choose_dtype(run))
    except ValueError as error:
        raise ProofError(str(error)) from error


def read_live(folder: Path) -> Readings:
    """The trained model's readings, from ``proof.json``."""
    found: dict[str, Rows] = json.loads((folder / PROOF).read_text())["live"]
    return {float(weight): rows for weight, rows in found.items()}


def _write_proof(folder: Path, readings: Mapping[str, Readings], **facts: Any) -> None:
    content = {name: {f"{weight:g}": rows for weight, rows in each.items()} for name, each in readings.items()}
    (folder / PROOF).write_text(json.dumps({**content, **facts}) + "\n")
