"""Proof that what was saved is what was trained: read it again and compare rewards.

After a sharded run (ZeRO) the reading happens in a fresh process: in the old one ``from_pretrained`` would enter
DeepSpeed's partitioning again and wait for ranks that do not come.
"""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tureen_train.config import RewardRun, dump, read_recipe
from tureen_train.rewards.score import RewardReader

LOOSE = {"bf16": 0.2, "fp32": 1e-3}


class ProofError(RuntimeError):
    """The saved model is not the trained one."""


def prove(saved: Path, live: Sequence[float], run: RewardRun, base: Path) -> None:
    """Compare the saved model's rewards on the probe conversations with the trained model's.

    The conversations and live rewards are kept in ``proof.json``. Tolerated: 1e-3 of the larger of 1 and the rewards'
    spread in float32, 0.2 of it in bf16 (training then ran under autocast; reading runs in float32).

    Raises:
        ProofError: a reward differs by more, or the reading process failed.
    """
    proof = saved.parent / "proof.json"
    proof.write_text(json.dumps({"live": list(live), "base": str(base), "recipe": dump(run)}))
    if run.scale.zero:
        outcome = subprocess.run([sys.executable, "-m", __name__, str(saved)], capture_output=True, text=True)
        if outcome.returncode:
            raise ProofError(f"{saved} cannot be read again: {outcome.stderr.strip().splitlines()[-1:]}")
    else:
        reread(saved)
    compare(json.loads(proof.read_text()), run.model.precision)


def reread(saved: Path) -> None:
    """Score the probes with what was saved, and add the rewards to ``proof.json``."""
    proof = saved.parent / "proof.json"
    found = json.loads(proof.read_text())
    run = _recipe(saved.parent)
    base = Path(found["base"]) if run.model.lora else None
    reader = RewardReader(saved, base, run.reading)
    conversations = json.loads((saved.parent / "probes.json").read_text())
    found["reread"] = [row[0] for row in reader.rewards(conversations)]
    proof.write_text(json.dumps(found))


def compare(found: dict[str, list[float]], precision: str) -> None:
    """Refuse a save whose rewards differ beyond the precision's tolerance."""
    live, again = found["live"], found["reread"]
    allowed = LOOSE[precision] * max(1.0, max(live) - min(live))
    for number, (trained, read) in enumerate(zip(live, again, strict=True)):
        if not math.isfinite(read) or abs(trained - read) > allowed:
            raise ProofError(f"probe {number}: trained {trained:.5f}, read again {read:.5f}, allowed ±{allowed:.5f}")


def _recipe(folder: Path) -> RewardRun:
    recipe = read_recipe(str(folder / "recipe.yaml"))
    if not isinstance(recipe, RewardRun):
        raise ProofError(f"{folder / 'recipe.yaml'} is no reward recipe")
    return recipe


if __name__ == "__main__":
    reread(Path(sys.argv[1]))
