"""The end of a run: the saved model is read again, compared with the trained one, and only then exported.

After a sharded run (ZeRO) all that happens in a fresh process: in the old one ``from_pretrained`` would enter
DeepSpeed's partitioning again and wait for ranks that do not come.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tureen_core.artifact import MANIFEST, Artifact, ArtifactError, Manifest
from tureen_train.reports.run_report import write_run_report
from tureen_train.runs.artifact_kind import ArtifactKind
from tureen_train.runs.export import export_artifact
from tureen_train.runs.folder import read_finished_run

LOOSE = {"bf16": 0.2, "fp32": 1e-3}
FRESH_PROCESS = "tureen_train.prove"


class ProofError(ArtifactError):
    """The saved model is not the trained one."""


def finish_run(
    folder: Path, kind: ArtifactKind, live: Sequence[float], bare: Sequence[float] = (), sharded: bool = False
) -> Artifact:
    """Prove a finished run's folder and export it.

    Args:
        folder: the run's, with everything but ``artifact/`` in it.
        live: the probes' numbers from the trained model: their rewards, row after row, or an expert's mean
            log-probabilities.
        bare: the same of an expert's base.
        sharded: whether DeepSpeed has run in this process.

    Raises:
        ProofError: the saved model, read again, gives other numbers, or cannot be read.
    """
    (folder / "proof.json").write_text(json.dumps({"live": list(live), "bare": list(bare)}) + "\n")
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
    """Compare the saved model's numbers for the probes with those in ``proof.json``, and add them to that file.

    Tolerated: 1e-3 of the larger of 1 and the numbers' spread in float32, 0.2 of it in bf16, where a reward is read
    under autocast, as it was trained. An expert that training moved must not read as its base.

    Raises:
        ProofError: the saved model is not the trained one.
    """
    path = folder / "proof.json"
    found: dict[str, Any] = json.loads(path.read_text())
    run, base = read_finished_run(folder)
    again = kind.reread_probes(run, folder, base)
    if found["live"] != found["bare"] and again == kind.reread_base(run, folder, base):
        raise ProofError(f"{folder / 'model'} reads as the bare base: its adapter was not saved")
    path.write_text(json.dumps({**found, "reread": again, "process": os.getpid()}) + "\n")
    compare(found["live"], again, run.model.precision)


def compare(live: Sequence[float], again: Sequence[float], precision: str) -> None:
    """Refuse a save whose numbers differ beyond the precision's tolerance.

    Raises:
        ProofError: naming the first probe that does.
    """
    allowed = LOOSE[precision] * max(1.0, max(live) - min(live))
    for number, (trained, read) in enumerate(zip(live, again, strict=True)):
        if not abs(trained - read) <= allowed:  # so that NaN is refused, too
            raise ProofError(f"probe {number}: trained {trained:.5f}, read again {read:.5f}, allowed ±{allowed:.5f}")
