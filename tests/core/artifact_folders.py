"""Change the files of an artifact, for the tests of the core."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tureen_core.artifact import (
    MANIFEST,
    Artifact,
    Manifest,
    seal_artifact,
)

WEIGHTS = "adapter_model.safetensors"
SCORE = "base_model.model.score.weight"


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text())


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder) | changes))


def retensor(path: Path, changes: dict[str, Tensor | None]) -> None:
    """Replace tensors of a file, or drop them. ``head`` is the score head of an adapter."""
    tensors: dict[str, Tensor | None] = {**load_file(path)}
    tensors |= {SCORE if key == "head" else key: tensor for key, tensor in changes.items()}
    save_file(
        {key: tensor for key, tensor in tensors.items() if tensor is not None},
        path,
        metadata={"format": "pt"},
    )


def reseal(folder: Path) -> Artifact:
    return seal_artifact(folder, Manifest.model_validate_json((folder / MANIFEST).read_text()))


def reseal_unchecked(folder: Path) -> None:
    """Sign a folder anew as an attacker would: every digest and the version are right."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in names if name != MANIFEST}
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text()).model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"version": manifest.identity()[:12]}).model_dump_json())
