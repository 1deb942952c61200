"""An artifact: a folder of standard Hugging Face files and ``tureen.json``, its manifest.

The manifest says what the weights are, how a reward is read from them, the scale of the reward, and the scores that
training measured on a dozen probe conversations. Opening an artifact verifies every digest and every tensor. Serving
scores the probes again.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from tureen_core.adapter_files import read_adapter
from tureen_core.artifact_tensors import (
    HEAD,
    ArtifactError,
    check_full_checkpoint,
    check_head,
    make_linear_head,
    read_head_tensors,
)
from tureen_core.gate import GATE, GateError, load_gate
from tureen_core.heads import GatedHead, LinearHead
from tureen_core.lora import Adapter, SoupError
from tureen_core.manifest import FORMAT, Base, Manifest, Objective, Probe, Training
from tureen_core.manifest_file import MANIFEST, README, ManifestFileError, digest_file, read_manifest_bytes
from tureen_core.own_files import LEFTOVERS, PICKLES, find_foreign_file
from tureen_core.stored_head import HEAD_FILE, HeadError, StoredHead, load_stored_head

__all__ = [
    "FORMAT",
    "GATE",
    "HEAD",
    "HEAD_FILE",
    "MANIFEST",
    "PICKLES",
    "Artifact",
    "ArtifactError",
    "Base",
    "Manifest",
    "Objective",
    "PlainParts",
    "Probe",
    "Training",
    "check_full_checkpoint",
    "check_head",
    "read_head_tensors",
    "open_artifact",
    "read_gate",
    "read_head",
    "read_manifest",
    "read_weights",
    "seal_artifact",
]


@dataclass(frozen=True, eq=False)
class PlainParts:
    """The parts of a model that another library saved: an artifact has them in files of its own.

    Attributes:
        form: the name of the form in which it was saved, see :mod:`tureen_core.plain`.
        tokenizer: its tokenizer, with the chat template that its texts are rendered with.
        head: its head; None if the checkpoint's own class computes the rewards.
        gate: its gate, if it has one.
        extra_keys: prefixes of the tensors that do not belong to the backbone.
    """

    form: str
    tokenizer: Any
    head: StoredHead | None = None
    gate: GatedHead | None = None
    extra_keys: tuple[str, ...] = (f"{HEAD}.",)


@dataclass(frozen=True)
class Artifact:
    """A verified folder and its manifest. ``plain`` is None, or the parts of a folder that has no manifest."""

    folder: Path
    manifest: Manifest
    plain: PlainParts | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The manifest's name."""
        return self.manifest.name

    def fingerprint(self, dtype: str) -> str:
        """Hash the manifest's identity and the runtime's dtype to 16 hex digits.

        Two servers give the same scores only if their fingerprints are equal.
        """
        return hashlib.sha256(f"{self.manifest.identity()}:{dtype}".encode()).hexdigest()[:16]


def seal_artifact(folder: Path, manifest: Manifest) -> Artifact:
    """Write ``tureen.json`` with the digest of every file and the version that follows from them; then open it.

    Raises:
        ArtifactError: a file is a pickle or a link, or the tensors differ from what the manifest says.
    """
    files = {path.relative_to(folder).as_posix(): digest_file(path) for path in _files(folder)}
    manifest = manifest.model_copy(update={"files": files})
    manifest = manifest.model_copy(update={"version": manifest.identity()[:12]})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return open_artifact(folder)


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact: verify its manifest, the digest of every file, and the name and shape of every tensor.

    Example::

        artifact = open_artifact(Path("artifacts/helpful"))
        print(artifact.name, [objective.name for objective in artifact.manifest.objectives])

    Raises:
        ArtifactError: a file is missing, unknown, changed, a link or a pickle; or a tensor is not as declared.
    """
    folder = folder.expanduser().resolve()
    manifest = read_manifest(folder)
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name in sorted(set(manifest.files) | set(found)):
        if name not in found:
            raise ArtifactError(f"{folder.name}: {name} is in the manifest and not in the folder; copy it again")
        if name not in manifest.files:
            raise ArtifactError(f"{folder.name}: {name} is in the folder and not in the manifest; remove it")
        if digest_file(found[name]) != manifest.files[name]:
            raise ArtifactError(f"{folder.name}: {name} has changed since it was exported (its SHA-256 differs)")
    if manifest.version != manifest.identity()[:12]:
        raise ArtifactError(f"{folder.name}: the manifest was edited: its version {manifest.version} is not its digest")
    if foreign := find_foreign_file(folder):
        raise ArtifactError(f"{folder.name}: {foreign}")
    artifact = Artifact(folder, manifest)
    head = read_weights(artifact)[1] if manifest.weights == "lora" else check_full_checkpoint(folder, manifest)
    if manifest.head.kind == "layers":
        read_head(artifact)
    gate = read_gate(artifact)
    if gate is not None and head is not None and head.shape != (gate.rewards, gate.hidden):
        sizes = f"{gate.rewards} rewards of {gate.hidden} hidden units"
        raise ArtifactError(f"{folder.name}: {GATE} is for {sizes} and the head is {list(head.shape)}")
    return artifact


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder without comparing it with the files.

    Raises:
        ArtifactError: there is no manifest, it is too large to be read, or a field of it is invalid.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(read_manifest_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the manifest"
        raise ArtifactError(f"{path}: {where}: {first['msg']}") from error
    except ManifestFileError as error:
        raise ArtifactError(str(error)) from error
    if manifest.kind == "reward" and "eos" not in manifest.reading.model_fields_set:
        raise ArtifactError(
            f"{path}: reading.eos: say whether EOS ends a text: `none` for models of transformers and TRL, `append` "
            "where training appended it; tureen-train import finds it out and proves it"
        )
    return manifest


def _files(folder: Path) -> list[Path]:
    """List the files, without manifest, card and ``LEFTOVERS``. Links may go from a hub's snapshot to its blobs."""
    paths, blobs = [], folder.parent.parent / "blobs"
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not (folder.parent.name == "snapshots" and path.resolve().parent == blobs):
            raise ArtifactError(f"{folder.name}: {path.name} is a link; copy the file it points to")
        if path.name in LEFTOVERS and path.is_file():
            continue
        if path.suffix.lower() in PICKLES:
            raise ArtifactError(f"{folder.name}: {path.name} may hold pickled code; artifacts are safetensors only")
        if not path.is_file() and not path.is_dir():
            raise ArtifactError(f"{folder.name}: {path.name} is neither a file nor a folder; remove it")
        if path.is_file() and path.relative_to(folder).as_posix() not in {MANIFEST, README}:
            paths.append(path)
    return paths


def read_weights(artifact: Artifact) -> tuple[Adapter, Tensor | None]:
    """Read a LoRA artifact's adapter and, for a reward model, its head ``[K, H]`` in float32.

    Raises:
        ArtifactError: the head is missing, a tensor is unexpected, the head has too few rows for the objectives, or a
            value is not finite.
    """
    manifest = artifact.manifest
    heads = (HEAD,) if manifest.kind == "reward" else ()
    try:
        adapter, extras = read_adapter(artifact.folder, manifest.name, heads)
    except SoupError as error:
        raise ArtifactError(str(error)) from error
    for path, pair in adapter.modules.items():
        if not bool(torch.isfinite(pair.a).all() and torch.isfinite(pair.b).all()):
            raise ArtifactError(f"{manifest.name}: {path} holds a value that is not finite")
    if artifact.plain is not None:  # its head was read by its form
        return adapter, None
    return adapter, check_head(manifest, extras) if heads else None


def read_gate(artifact: Artifact) -> GatedHead | None:
    """Read the gate that combines the head's rewards into the overall objective; None if the artifact has no gate.

    Raises:
        ArtifactError: the gate is missing or unusable, or the folder has one that the manifest does not declare.
    """
    if artifact.plain is not None:
        return artifact.plain.gate
    if not artifact.manifest.gated:
        if (artifact.folder / GATE).exists():
            raise ArtifactError(f"{artifact.name}: {GATE} belongs to a gated model; say gated: true")
        return None
    try:
        return load_gate(artifact.folder)
    except GateError as error:
        raise ArtifactError(f"{artifact.name}: {error}") from error


def read_head(artifact: Artifact) -> LinearHead | StoredHead:
    """Read the head of a reward artifact that computes its rewards from hidden states.

    Raises:
        ArtifactError: the head is missing or unusable.
    """
    if artifact.plain is not None and artifact.plain.head is not None:
        return artifact.plain.head
    manifest = artifact.manifest
    if manifest.head.kind == "layers":
        try:
            return load_stored_head(artifact.folder, manifest.head)
        except HeadError as error:
            raise ArtifactError(f"{manifest.name}: {error}") from error
    if manifest.weights == "full":
        return make_linear_head(check_head(manifest, read_head_tensors(artifact.folder)), manifest.rows)
    weight = read_weights(artifact)[1]
    if weight is None:
        raise ArtifactError(f"{manifest.name} is a {manifest.kind} artifact and has no head")
    return make_linear_head(weight, manifest.rows)
