"""Turn pickled weights into safetensors, in a process of its own that loads tensors only and has bounded means."""

import shutil
import subprocess
import sys
from pathlib import Path

from tureen_core.plain.options import PlainError

PATTERN = "pytorch_model*.bin"
INDEX = "pytorch_model.bin.index.json"
KEPT = (".json", ".jinja", ".model", ".txt", ".md")
BYTES_PER_SECOND = 5 * 2**20  # a slow disk
START_SECONDS = 120


def convert_pickles(folder: Path, out: Path) -> Path:
    """Write a folder's ``pytorch_model*.bin`` as safetensors to a new folder, with the files beside them.

    Nothing in a pickle is run: ``torch.load(weights_only=True)`` knows tensors only.

    Args:
        folder: the model's folder.
        out: the folder to create.

    Returns:
        ``out``.

    Raises:
        PlainError: there are no such files, one holds something else than tensors, or it takes too long.
    """
    shards = sorted(folder.glob(PATTERN))
    if not shards:
        raise PlainError(f"{folder} holds no {PATTERN}: leave out --from pickle if its weights are safetensors")
    out.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file() and path.suffix in KEPT and path.name != INDEX:
            shutil.copyfile(path, out / path.name)
    seconds = START_SECONDS + sum(path.stat().st_size for path in shards) // BYTES_PER_SECOND
    command = [sys.executable, "-m", "tureen_core.plain.pickle_conversion", str(folder), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise PlainError(f"{folder}: its pickles were not converted within {seconds} s") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise PlainError(f"{folder}: its pickles cannot be converted: {reason}")
    return out
