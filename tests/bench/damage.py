"""The proof of serving against damage: every starter artifact, honest and damaged, in one dtype.

    python tests/bench/damage.py bfloat16 [rewards/harmless …]

Each line is an artifact and a kind of damage. The figures are those of the probe and the adapter's weight that tell
the most: the largest difference from what training saw, the tolerance, and their ratio. More than 1 is refused.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from serve.damaged import HONEST, damage_artifact, prove_copies

import tureen_serve
from tureen_serve.runtimes.probes import Proof

STARTER = Path(tureen_serve.__file__).parent / "starter"


def main(dtype: str, only: Sequence[str] = ()) -> None:
    """Print the table as Markdown."""
    print(
        f"| {dtype} artifact | damage | largest difference | tolerance | ratio | refused |\n|---|---|---|---|---|---|"
    )
    for kind in ("rewards", "experts"):
        everything = sorted(path for path in (STARTER / kind).iterdir() if path.is_dir())
        for folder in everything:
            name = f"{kind}/{folder.name}"
            if not only or name in only:
                _measure(folder, name, [other for other in everything if other != folder], dtype)


def _measure(folder: Path, name: str, neighbours: Sequence[Path], dtype: str) -> None:
    with TemporaryDirectory() as scratch:
        copies = damage_artifact(folder, Path(scratch), neighbours)
        proofs = prove_copies([copy for several in copies.values() for copy in several], dtype)
        for damage, several in copies.items():
            told = [max(proofs[copy.name], key=_ratio) for copy in several]
            worst = (max if damage == HONEST else min)(told, key=_ratio)
            apart = abs(worst.found - worst.expected)
            verdict = "no" if worst.holds else "yes"
            figures = f"{apart:.3g} | {worst.tolerance:.3g} | {_ratio(worst):.2f}"
            print(f"| {name} | {damage} | {figures} | {verdict} |", flush=True)


def _ratio(proof: Proof) -> float:
    return abs(proof.found - proof.expected) / proof.tolerance


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
