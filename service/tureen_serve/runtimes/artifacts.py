"""Open artifacts, and check them against their bases and each other, before any model is loaded."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tureen.errors import Unprocessable
from tureen_core.artifact import Artifact, open_artifact, read_weights
from tureen_core.base import digest_weights, load_tokenizer, locate_base
from tureen_core.lora import Adapter
from tureen_core.preference import Normalize, normalise_weights
from tureen_core.reading import ControlMarkRule, Reading
from tureen_core.soup import Stack, concatenate_adapters
from tureen_core.template import Renderer
from tureen_serve.runtimes.catalogue import Family, Reward
from tureen_serve.settings import FamilyEntry, RewardEntry

T = TypeVar("T", bound=Hashable)


class LoadError(RuntimeError):
    """The configuration cannot be served. The message names the part and the reason."""


class Bases:
    """Base models on this machine. Each is digested, and its tokenizer loaded, only once.

    Args:
        cache: the folder for packaged bases after their conversion.
        control_marks: how control marks inside a message are read; None for the setting of each reading.
    """

    def __init__(self, cache: Path, control_marks: ControlMarkRule | None = None) -> None:
        self._cache = cache
        self._control_marks = control_marks
        self._digests: dict[Path, str] = {}
        self._tokenizers: dict[Path, Any] = {}
        self._renderers: dict[tuple[Path, Reading], Renderer] = {}

    def locate(self, model: str) -> Path:
        """Find the folder of a base.

        Raises:
            BaseError: the base is not on this machine.
        """
        return locate_base(model, self._cache)

    def compute_digest(self, folder: Path) -> str:
        """Compute the digest of a base's weights."""
        if folder not in self._digests:
            self._digests[folder] = digest_weights(folder)
        return self._digests[folder]

    def locate_for(self, artifact: Artifact, model: str | None = None) -> Path:
        """Find the folder of an artifact's base. For a full checkpoint it is the artifact's own folder.

        Args:
            model: the base to use instead of the one that the manifest names; it must have the same weights.

        Raises:
            LoadError: the base that was found has other weights.
        """
        base = artifact.manifest.base
        if artifact.manifest.weights == "full" or base is None:
            return artifact.folder
        folder = self.locate(model or base.model)
        if self.compute_digest(folder) != base.digest:
            found = f"{folder} has the weights digest {self.compute_digest(folder)[:12]}"
            raise LoadError(f"{artifact.name} needs the base {base.model} with {base.digest[:12]}, but {found}")
        return folder

    def load_tokenizer(self, folder: Path) -> Any:
        """Load the tokenizer of a base."""
        if folder not in self._tokenizers:
            self._tokenizers[folder] = load_tokenizer(folder)
        return self._tokenizers[folder]

    def make_renderer(self, folder: Path, reading: Reading) -> Renderer:
        """Make a base's renderer for a reading. There is one for each, so that equal texts are tokenised once."""
        if self._control_marks is not None:
            reading = reading.model_copy(update={"control_marks": self._control_marks})
        if (folder, reading) not in self._renderers:
            self._renderers[folder, reading] = Renderer(self.load_tokenizer(folder), reading)
        return self._renderers[folder, reading]

    def make_verified_renderer(self, folder: Path, artifact: Artifact) -> Renderer:
        """Make an artifact's renderer, and check that it renders as in training.

        Raises:
            LoadError: the base's chat template or tokenizer differs from the one of the training.
        """
        renderer = self.make_renderer(folder, artifact.manifest.reading)
        if renderer.digest() != renderer.reading.template:
            trained = renderer.reading.template or "none"
            raise LoadError(
                f"{artifact.name}: the template of {folder} is {renderer.digest()}, training's was {trained}; "
                "use the tokenizer that it was trained with"
            )
        return renderer


@dataclass(frozen=True)
class OpenedReward:
    """An opened reward artifact, the folder of its base (or of its own weights), and its rewards as they are served."""

    artifact: Artifact
    folder: Path
    rewards: tuple[Reward, ...]


def open_reward(entry: RewardEntry, bases: Bases, dtype: str) -> OpenedReward:
    """Open a reward artifact.

    Raises:
        LoadError: it is not a reward model, its base has other weights or another template, or it cannot be renamed.
        ArtifactError: a file of the artifact is wrong.
    """
    artifact = _open(entry.path, "reward")
    manifest = artifact.manifest
    folder = bases.locate_for(artifact)
    renderer = bases.make_verified_renderer(folder, artifact)
    if entry.name is not None and len(manifest.objectives) > 1:
        raise LoadError(
            f"{artifact.name} has {len(manifest.objectives)} objectives: remove `name`, it renames only one"
        )
    rewards = tuple(
        Reward(
            name=entry.name or objective.name,
            artifact=artifact,
            column=objective.column,
            calibration=objective.calibration,
            fingerprint=artifact.fingerprint(dtype),
            renderer=renderer,
        )
        for objective in manifest.objectives
    )
    return OpenedReward(artifact, folder, rewards)


@dataclass(frozen=True)
class OpenedFamily:
    """An opened family, the folder of its base, and its stacked experts. The runtime sets ``family.context`` later."""

    family: Family
    folder: Path
    stack: Stack


def open_family(entry: FamilyEntry, bases: Bases, dtype: str) -> OpenedFamily:
    """Open the experts of a policy family.

    Raises:
        LoadError: an artifact is not an expert for soups, the experts disagree, or a preset is invalid.
        ArtifactError: a file of an artifact is wrong.
        SoupError: the experts cannot be concatenated.
    """
    where = f"families.{entry.name}"
    experts = _experts(entry.experts, where)
    folder = _agreed([bases.locate_for(each, entry.base) for each in experts.values()], f"{where}.base")
    folder = folder or bases.locate(entry.base or "")
    steering = [each.manifest.steering for each in experts.values() if each.manifest.steering]
    semantics = entry.semantics or _agreed([each.semantics for each in steering], f"{where}.semantics") or "delta"
    normalize = entry.normalize or _agreed([each.normalize for each in steering], f"{where}.normalize") or "simplex"
    stack = concatenate_adapters([Adapter(name, read_weights(each)[0].modules) for name, each in experts.items()])
    if semantics == "factor" and stack.find_factor_obstacle():
        raise LoadError(f"{where}.semantics: {stack.find_factor_obstacle()}")
    renderer = _agreed([bases.make_verified_renderer(folder, each) for each in experts.values()], f"{where}: readings")
    presets = {
        name: _weights(each, experts, normalize, f"{where}.presets.{name}") for name, each in entry.presets.items()
    }
    family = Family(
        name=entry.name,
        base=folder.name,
        experts=experts,
        renderer=renderer or bases.make_renderer(folder, Reading()),
        context=0,
        presets=presets,
        default=_weights(entry.default, experts, normalize, f"{where}.default") if entry.default else {},
        semantics=semantics,
        normalize=normalize,
        factor_obstacle=stack.find_factor_obstacle(),
        fingerprint=_fingerprint(bases.compute_digest(folder), dtype, experts),
    )
    return OpenedFamily(family, folder, stack)


def _experts(paths: Sequence[Path], where: str) -> dict[str, Artifact]:
    experts: dict[str, Artifact] = {}
    for path in paths:
        artifact = _open(path, "expert")
        objective = artifact.manifest.objectives[0].name
        if artifact.manifest.steering is not None and artifact.manifest.steering.method != "soup":
            raise LoadError(
                f"{artifact.name} is steered by {artifact.manifest.steering.method}; a family needs steering by soup"
            )
        if objective in experts:
            raise LoadError(f"{where}: two experts for {objective!r}; leave one out")
        experts[objective] = artifact
    return experts


def _open(path: Path, kind: str) -> Artifact:
    artifact = open_artifact(path)
    if artifact.manifest.kind != kind:
        raise LoadError(f"{path} is a {artifact.manifest.kind} artifact; a {kind} is expected here")
    return artifact


def _agreed(values: Iterable[T], where: str) -> T | None:
    """Return the value that all experts have, or None without experts."""
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise LoadError(f"{where}: the experts disagree ({different[0]}, {different[1]})")
    return different[0] if different else None


def _weights(
    weights: Mapping[str, float], known: Mapping[str, Artifact], normalize: Normalize, where: str
) -> dict[str, float]:
    try:
        return normalise_weights(weights, known, normalize, where)
    except Unprocessable as error:
        raise LoadError(f"{error.param}: {error.message}") from error


def _fingerprint(base: str, dtype: str, experts: Mapping[str, Artifact]) -> str:
    """Hash base, dtype and experts to 16 hex digits. Equal texts under equal seeds need an equal fingerprint."""
    identity = [base, dtype, {name: artifact.fingerprint(dtype) for name, artifact in experts.items()}]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
