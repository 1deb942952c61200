"""The end of a run: what was saved is read again, compared with what was trained, and only then exported.

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
from tureen_train.config import RewardRun
from tureen_train.reports.run_report import run_report
from tureen_train.runs.export import expert_reader, export, finished, read_probes, reward_reader
from tureen_train.settings import offline

LOOSE = {"bf16": 0.2, "fp32": 1e-3}


class ProofError(ArtifactError):
    """The saved model is not the trained one."""


def finish(folder: Path, live: Sequence[float], bare: Sequence[float] = (), sharded: bool = False) -> Artifact:
    """Prove a finished run's folder and export it.

    Args:
        folder: the run's, all but ``artifact/`` in it.
        live: what the trained model gave for the probes: their rewards, row after row, or an expert's mean
            log-probability.
        bare: the same of an expert's base.
        sharded: whether DeepSpeed has had this process.

    Raises:
        ProofError: the saved model, read again, gives other numbers, or cannot be read.
    """
    (folder / "proof.json").write_text(json.dumps({"live": list(live), "bare": list(bare)}) + "\n")
    if not sharded:
        return settle(folder)
    outcome = subprocess.run([sys.executable, "-m", __name__, str(folder)], stderr=subprocess.PIPE, text=True)
    if outcome.returncode:
        said = outcome.stderr.strip().splitlines() or [f"exit status {outcome.returncode}"]
        raise ProofError(f"{folder}: {said[-1]}")
    manifest = Manifest.model_validate_json((folder / "artifact" / MANIFEST).read_bytes())
    return Artifact(folder / "artifact", manifest)


def settle(folder: Path) -> Artifact:
    """Prove, then export, in this process, and write the report."""
    prove(folder)
    artifact = export(folder)
    run_report(folder)
    return artifact


def prove(folder: Path) -> None:
    """Compare the saved model's numbers for the probes with those in ``proof.json``, and write them beside.

    Tolerated: 1e-3 of the larger of 1 and the numbers' spread in float32, 0.2 of it in bf16, where a reward is read
    under autocast, as it was trained. An expert that training moved must not read as its base.

    Raises:
        ProofError: the saved model is not the trained one.
    """
    path = folder / "proof.json"
    found: dict[str, Any] = json.loads(path.read_text())
    run, base = finished(folder)
    if isinstance(run, RewardRun):
        rows = reward_reader(run, folder / "model", base, as_trained=True).values(read_probes(folder), run.loss.input)
        again = [value for row in rows for value in row]
    else:
        conversations = [probe.messages for probe in read_probes(folder)]
        again = expert_reader(run, folder / "model", base).mean_logprobs(conversations)
        if found["live"] != found["bare"] and again == expert_reader(run, None, base).mean_logprobs(conversations):
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


if __name__ == "__main__":
    offline()
    settle(Path(sys.argv[1]))
