"""Write docker/locked.txt: the versions of constraints.txt that the cpu target installs, with their hashes.

    pip install uv && python docker/lock.py

torch is left out with what only its builds for GPUs need: the target takes it from an index of its own.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("serve", "s3", "gs", "az")
OF_TORCH = re.compile(r"(torch|triton|nvidia-|cuda-)")
COMMAND = ["uv", "pip", "compile", "pyproject.toml", "--python-version", "3.11", "--python-platform", "linux"]
FLAGS = ["--constraint", "constraints.txt", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]


def main() -> None:
    """Resolve, and write the file."""
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    done = subprocess.run([*COMMAND, *FLAGS, *extras], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (ROOT / "docker" / "locked.txt").write_text(drop_torch(done.stdout))


def drop_torch(locked: str) -> str:
    """Leave out torch, and the packages that only its builds for GPUs need."""
    entries = re.split(r"^(?=\S)", locked, flags=re.MULTILINE)
    return "".join(entry for entry in entries if entry and not OF_TORCH.match(entry))


if __name__ == "__main__":
    main()
