"""A model's folder may name its own files only. Libraries read whatever its configuration names.

A file from elsewhere would be covered by no digest, and its lines could leave the server as the words of a tokenizer.
"""

import json
from pathlib import Path
from typing import Any

TOKENIZER_CONFIG = "tokenizer_config.json"
INDICES = "*.index.json"
READ_AS_PATHS = ("vocab", "merges")  # transformers opens what these name, if they are text
# what transformers' Trainer leaves beside a model; nobody reads it, so it is neither refused nor part of an artifact
LEFTOVERS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
INPUTS = "init_inputs"  # a list; its first item may stand for the vocabulary


def find_foreign_file(folder: Path) -> str | None:
    """Say which file that is not in ``folder`` a configuration in it names; None if there is none.

    Read are the indices of sharded weights, and the tokenizer's configuration. A file that is not JSON names nothing.
    """
    for index in sorted(folder.glob(INDICES)):
        shards = _read_map(_read_map(_read_json(index)).get("weight_map")).values()
        for name in shards:
            if not is_own_name(name):
                return f"{index.name} names {str(name)[:200]!r}, which is no file of this folder"
    config = _read_map(_read_json(folder / TOKENIZER_CONFIG))
    inputs = config.get(INPUTS)
    named = [(field, config.get(field)) for field in READ_AS_PATHS]
    named += [(INPUTS, each) for each in inputs] if isinstance(inputs, list) else [(INPUTS, inputs)]
    for field, value in named:
        if isinstance(value, str):
            return f"{TOKENIZER_CONFIG} names the file {value[:200]!r} in `{field}`; save the tokenizer again"
    return None


def list_missing_shards(folder: Path) -> list[str]:
    """List the shards of weights that an index names and ``folder`` lacks, as after an interrupted download."""
    wanted: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        wanted |= {str(each) for each in _read_map(_read_map(_read_json(index)).get("weight_map")).values()}
    return sorted(each for each in wanted if not (folder / each).is_file())


def is_own_name(name: object) -> bool:
    """Whether a name is that of a file directly in a folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def is_own_path(path: str) -> bool:
    """Whether a path with ``/`` leads to a file in a folder or below it."""
    return all(is_own_name(part) for part in path.split("/"))


def find_outside_link(folder: Path, root: Path) -> Path | None:
    """Find a link in ``folder``, or the folder itself, that leads out of ``root``; None if there is none."""
    inside = root.resolve()
    for path in (folder, *sorted(folder.rglob("*"))):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            return path
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _read_map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
