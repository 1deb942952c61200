"""An artifact: a folder of standard Hugging Face files and ``tureen.json``, the manifest that is the contract.

The manifest says what the weights are, how a reward is read off them, what its scale is, and what it gave for a dozen
probe conversations in training. Opening one verifies every digest and every tensor; serving re-scores the probes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import safe_open
from torch import Tensor

from tureen_core.calibration import Calibration
from tureen_core.preference import NAME
from tureen_core.soup import Adapter, SoupError, read_adapter
from tureen_core.template import Reading

MANIFEST = "tureen.json"
FORMAT: Literal[1] = 1
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
HEAD = "score"


class ArtifactError(ValueError):
    """An artifact cannot be trusted or used; the message says which file, tensor or field, and why."""


class Part(BaseModel):
    """Base of the manifest's parts: unknown fields are an error, since they may change a meaning."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Base(Part):
    """The checkpoint that an adapter stands on; ``digest`` is :func:`tureen_core.base.weights_digest`."""

    model: str
    digest: str


class Objective(Part):
    """One reward: its name, its column in the head, its scale."""

    name: str
    column: int = Field(default=0, ge=0)
    calibration: Calibration = Calibration()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use 1 to 64 of letters, digits, '_', '.', '-'")
        return name


class Steering(Part):
    """How a policy part is steered: experts of one ``family`` form a soup."""

    method: Literal["soup", "prompt", "reward-tags"] = "soup"
    family: str
    semantics: Literal["delta", "factor"] = "delta"
    normalize: Literal["simplex", "none"] = "simplex"


class Probe(Part):
    """A conversation and what training saw: scores of a reward model, or an expert's mean log-probability
    (nats a token) of the last message."""

    messages: list[dict[str, str]]
    scores: dict[str, float] = {}
    logprob: float | None = None


class Training(Part):
    """Where it comes from: the resolved recipe, digests of the data, figures, licences, versions."""

    recipe: dict[str, Any] = {}
    data: dict[str, Any] = {}
    seed: int = 0
    metrics: dict[str, Any] = {}
    licences: list[str] = []
    libraries: dict[str, str] = {}


class Manifest(Part):
    """``tureen.json``."""

    format: Literal[1] = FORMAT
    kind: Literal["reward", "expert", "policy"]
    name: str
    version: str = ""
    weights: Literal["lora", "full"] = "lora"
    base: Base | None = None
    objectives: list[Objective] = Field(min_length=1)
    reading: Reading
    steering: Steering | None = None
    tolerance: dict[str, float] = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.1}
    files: dict[str, str] = {}
    probes: list[Probe] = []
    training: Training = Training()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use 1 to 64 of letters, digits, '_', '.', '-'")
        return name

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"two objectives have one name: {names}")
        if self.weights == "lora" and self.base is None:
            raise ValueError("a LoRA artifact needs the base it stands on")
        if self.kind == "expert" and self.steering is None:
            raise ValueError("an expert needs its steering")
        return self

    def identity(self) -> str:
        """SHA-256 over all that changes a score: files, base, objectives with their scale, reading, steering."""
        parts = self.model_dump(include={"kind", "weights", "base", "objectives", "reading", "steering", "files"})
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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


def seal(folder: Path, manifest: Manifest) -> Artifact:
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
    manifest = _read_manifest(folder)
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
    if manifest.weights == "lora":
        read_weights(artifact)
    return artifact


def _read_manifest(folder: Path) -> Manifest:
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
        if path.suffix in PICKLES:
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
    except (SoupError, FileNotFoundError) as error:
        raise ArtifactError(str(error)) from error
    for path, pair in adapter.modules.items():
        if not bool(torch.isfinite(pair.a).all() and torch.isfinite(pair.b).all()):
            raise ArtifactError(f"{manifest.name}: {path} holds a value that is not finite")
    return adapter, check_head(manifest, extras) if heads else None


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
    rows = 1 + max(objective.column for objective in manifest.objectives)
    if head.ndim != 2 or head.shape[0] < rows:
        raise ArtifactError(f"{manifest.name}: the head is {list(head.shape)} and the objectives need {rows} rows")
    if not bool(torch.isfinite(head).all()):
        raise ArtifactError(f"{manifest.name}: the score head holds a value that is not finite")
    return head


def tensor_names(folder: Path) -> set[str]:
    """Names of all tensors in a folder's safetensors files."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            names |= set(shard.keys())
    return names
