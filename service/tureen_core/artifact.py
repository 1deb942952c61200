"""An artifact: a folder of standard Hugging Face files and ``tureen.json``, the manifest that is the contract.

The manifest says what the weights are, how a reward is read off them, what its scale is, and what it gave for a dozen
probe conversations in training. Opening one verifies every digest and every tensor; serving re-scores the probes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tureen_core.adapter_files import read_adapter
from tureen_core.gate import GATE, GateError, load_gate
from tureen_core.heads import GatedHead
from tureen_core.lora import Adapter, SoupError
from tureen_core.manifest import FORMAT, Base, Manifest, Objective, Part, Probe, Steering, Training
from tureen_core.peft_config import CONFIG as ADAPTER

__all__ = [
    "FORMAT",
    "GATE",
    "HEAD",
    "MANIFEST",
    "PICKLES",
    "Artifact",
    "ArtifactError",
    "Base",
    "Manifest",
    "Objective",
    "Part",
    "Probe",
    "Steering",
    "Training",
    "check_full_checkpoint",
    "check_head",
    "read_head_tensors",
    "open_artifact",
    "read_gate",
    "read_manifest",
    "read_weights",
    "seal_artifact",
]

MANIFEST = "tureen.json"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
HEAD = "score"


class ArtifactError(ValueError):
    """An artifact cannot be trusted or used; the message says which file, tensor or field, and why."""


@dataclass(frozen=True)
class Artifact:
    """A verified folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The manifest's name."""
        return self.manifest.name

    def fingerprint(self, dtype: str) -> str:
        """Sixteen hex digits over the identity and the runtime's dtype: equal scores need an equal fingerprint."""
        return hashlib.sha256(f"{self.manifest.identity()}:{dtype}".encode()).hexdigest()[:16]


def seal_artifact(folder: Path, manifest: Manifest) -> Artifact:
    """Write ``tureen.json`` over the folder's files: their digests, and the version they make.

    Raises:
        ArtifactError: a file is a pickle, a link, or the tensors are not what the manifest says.
    """
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    manifest = manifest.model_copy(update={"files": files})
    manifest = manifest.model_copy(update={"version": manifest.identity()[:12]})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    return open_artifact(folder)


def open_artifact(folder: Path) -> Artifact:
    """Open a folder and verify all of it: manifest, digests, no strangers, no pickles, every tensor in its place.

    Raises:
        ArtifactError: with the sentence that says which.
    """
    folder = folder.expanduser().resolve()
    manifest = read_manifest(folder)
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name in sorted(set(manifest.files) | set(found)):
        if name not in found:
            raise ArtifactError(f"{folder.name}: {name} is in the manifest and not in the folder")
        if name not in manifest.files:
            raise ArtifactError(f"{folder.name}: {name} is in the folder and not in the manifest")
        if _sha256(found[name]) != manifest.files[name]:
            raise ArtifactError(f"{folder.name}: {name} has changed since it was exported (SHA-256 differs)")
    if manifest.version != manifest.identity()[:12]:
        raise ArtifactError(f"{folder.name}: the manifest was edited: version {manifest.version} is not its digest")
    artifact = Artifact(folder, manifest)
    head = read_weights(artifact)[1] if manifest.weights == "lora" else check_full_checkpoint(artifact)
    gate = read_gate(artifact)
    if gate is not None and head is not None and head.shape != (gate.rewards, gate.hidden):
        sizes = f"{gate.rewards} rewards of {gate.hidden} hidden units"
        raise ArtifactError(f"{folder.name}: {GATE} is for {sizes} and the head is {list(head.shape)}")
    return artifact


def read_manifest(folder: Path) -> Manifest:
    """What a folder says of itself, not yet held against it.

    Raises:
        ArtifactError: there is no manifest, or one that cannot be.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder} has no {MANIFEST}: export it with tureen-train export")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the manifest"
        raise ArtifactError(f"{path}: {where}: {first['msg']}") from error


def _files(folder: Path) -> list[Path]:
    """Every file but the manifest and the human's README."""
    paths = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ArtifactError(f"{folder.name}: {path.name} is a link; copy the file it points to")
        if path.suffix.lower() in PICKLES:
            raise ArtifactError(f"{folder.name}: {path.name} may hold pickled code; artifacts are safetensors only")
        if path.is_file() and path.relative_to(folder).as_posix() not in {MANIFEST, "README.md"}:
            paths.append(path)
    return paths


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(artifact: Artifact) -> tuple[Adapter, Tensor | None]:
    """A LoRA artifact's adapter and, for a reward model, its head ``[K, H]`` float32.

    Raises:
        ArtifactError: a missing head, a tensor too many, a shape that fits no objective, a value that is not finite.
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
    return adapter, check_head(manifest, extras) if heads else None


def read_gate(artifact: Artifact) -> GatedHead | None:
    """The gate that makes the overall objective of the head's rewards; None where an artifact has none.

    Raises:
        ArtifactError: it is missing or cannot be used, or stands there unannounced.
    """
    if not artifact.manifest.gated:
        if (artifact.folder / GATE).exists():
            raise ArtifactError(f"{artifact.name}: {GATE} belongs to a gated model; say gated: true")
        return None
    try:
        return load_gate(artifact.folder)
    except GateError as error:
        raise ArtifactError(f"{artifact.name}: {error}") from error


def check_head(manifest: Manifest, extras: Mapping[str, Tensor]) -> Tensor:
    """The score head among ``extras``; refuses its absence, since a library would start a random one in its place."""
    strange = set(extras) - {f"{HEAD}.weight"}
    if strange:
        raise ArtifactError(f"{manifest.name}: unexpected tensor {sorted(strange)[0]}")
    if not extras:
        raise ArtifactError(
            f"{manifest.name}: the score head ({HEAD}.weight) is missing; nothing here can give a reward"
        )
    head = extras[f"{HEAD}.weight"].float()
    rows = manifest.rows
    if head.ndim != 2 or head.shape[0] < rows or (manifest.gated and head.shape[0] != rows):
        raise ArtifactError(f"{manifest.name}: the head is {list(head.shape)} and the objectives need {rows} rows")
    if not bool(torch.isfinite(head).all()):
        raise ArtifactError(f"{manifest.name}: the score head holds a value that is not finite")
    return head


def check_full_checkpoint(artifact: Artifact) -> Tensor | None:
    """Check a full checkpoint against the architecture that its ``config.json`` names, without loading its weights.

    Returns:
        A reward model's head ``[K, H]`` float32.

    A reward model opens with ``AutoModelForSequenceClassification`` and keeps its head in ``score.weight``; anything
    else opens with ``AutoModelForCausalLM``.

    Raises:
        ArtifactError: the configuration cannot be opened, a tensor is missing, too many or of another shape, or the
            head cannot be used.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    name, folder = artifact.name, artifact.folder
    reward = artifact.manifest.kind == "reward"
    if (folder / ADAPTER).exists():  # transformers would go and fetch the base that it names
        raise ArtifactError(f"{name}: {ADAPTER} does not belong beside full weights; say weights: lora")
    opener = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    try:
        heads = read_head_tensors(folder)
        _, found = opener.from_pretrained(
            folder,
            device_map="meta",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{name}: not a checkpoint that {opener.__name__} opens: {error}") from error
    head = check_head(artifact.manifest, heads) if reward else None
    for fault in ("missing", "unexpected", "mismatched"):
        if keys := found[f"{fault}_keys"]:
            raise ArtifactError(f"{name}: {fault} tensor {min(map(str, keys))}")
    return head


def read_head_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a full checkpoint's score head by name, from whichever file holds them."""
    heads: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            heads |= {key: shard.get_tensor(key) for key in shard.keys() if key.startswith(f"{HEAD}.")}  # noqa: SIM118
    return heads
