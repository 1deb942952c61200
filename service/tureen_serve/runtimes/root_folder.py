"""One folder of a rewards root: an artifact, a plain model, or why it is neither. Weights are never read."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tureen_core.artifact import MANIFEST, Artifact, ArtifactError, Manifest, read_manifest
from tureen_core.calibration import Calibration
from tureen_core.own_files import find_outside_link, is_own_name
from tureen_core.peft_config import CONFIG as ADAPTER_CONFIG
from tureen_core.plain.bases import MissingBase, place_adapter_base
from tureen_core.plain.checkpoint import read_json
from tureen_core.plain.option_flags import name_flags
from tureen_core.plain.options import NO_OPTIONS, PlainError
from tureen_core.plain.reward import NAMELESS, clean_name, describe_plain_reward
from tureen_core.quantisation import find_quantisation, name_quantisation

PLAIN = ("config.json", ADAPTER_CONFIG)


@dataclass(frozen=True)
class OfferedReward:
    """A reward that could be loaded: its name, its artifact and its scale, None if it has none."""

    name: str
    artifact: Artifact
    calibration: Calibration | None


@dataclass(frozen=True)
class Source:
    """A folder from which a reward model could be loaded.

    Attributes:
        state: a digest of the names, sizes and times of its files. A folder with another state is another model.
        manifest: of a plain model what its files tell, without digests and probes.
        names: the names of its rewards, in the order of the manifest. A reward that nobody has named is called like the
            folder.
        plain: whether it has no manifest of its own.
        base: the folder of a plain adapter's base.
    """

    folder: Path
    state: str
    manifest: Manifest
    names: tuple[str, ...]
    plain: bool = False
    base: Path | None = None

    @property
    def key(self) -> tuple[Path, str]:
        """What tells it from other sources."""
        return self.folder, self.state

    @property
    def offers(self) -> tuple[OfferedReward, ...]:
        """Its rewards, as far as the manifest describes them."""
        named = zip(self.names, self.manifest.objectives, strict=True)
        return tuple(OfferedReward(name, self.artifact, each.calibration) for name, each in named)

    @property
    def artifact(self) -> Artifact:
        """The artifact as its manifest describes it; its files are not verified yet."""
        return Artifact(self.folder, self.manifest)

    def fingerprint(self, dtype: str) -> str | None:
        """Hash what changes a score; None for a plain model, whose weights were not read yet."""
        return None if self.plain else self.artifact.fingerprint(dtype)


@dataclass(frozen=True)
class UnusableFolder:
    """A folder that looks like a model and cannot be offered.

    Attributes:
        reason: names the folder and says why.
        base: None; as of a :class:`Source`.
        again: whether the reason lies outside of the folder, so that it is read again although it has not changed.
    """

    folder: Path
    state: str
    reason: str
    base: Path | None = None
    again: bool = False


def read_folder(
    folder: Path,
    before: Source | UnusableFolder | None = None,
    root: Path | None = None,
    places: Mapping[str, Path] | None = None,
) -> Source | UnusableFolder | None:
    """Read what a folder holds; None if it is no model.

    Args:
        before: what was found in it earlier. If its state is the same, it is not read again.
        root: the folder that links in it must not lead out of; its own parent by default.
        places: the folders of bases, by the names that models have for them.

    Raises:
        OSError: it disappeared meanwhile, or may not be read.
    """
    plain = not (folder / MANIFEST).is_file()
    if plain and not any((folder / name).is_file() for name in PLAIN):
        return None
    state = compute_state(folder, before.base if before else None)
    if before is not None and before.state == state and not (isinstance(before, UnusableFolder) and before.again):
        return before
    if link := find_outside_link(folder, root or folder.parent):
        where = link.relative_to(folder.parent)
        return UnusableFolder(folder, state, f"{where} is a link out of the rewards root; copy what it points to")
    return _read_plain(folder, places or {}) if plain else _read_artifact(folder)


def compute_state(folder: Path, base: Path | None = None) -> str:
    """Digest the names, sizes and times of a folder's files, and of those of an adapter's base.

    Raises:
        OSError: the folder cannot be read.
    """
    own = _digest_facts(folder)
    if base is None:
        return own
    try:
        return f"{own}+{_digest_facts(base)}"
    except OSError:
        return f"{own}+"


def _digest_facts(folder: Path) -> str:
    facts = []
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(place) / name
            status = path.lstat()
            facts.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns, status.st_ino))
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise error


def _read_artifact(folder: Path) -> Source | UnusableFolder:
    state = compute_state(folder)
    try:
        manifest = read_manifest(folder)
    except (ArtifactError, OSError) as error:
        return UnusableFolder(folder, state, str(error))
    if manifest.kind != "reward":
        fault: str | None = f"it is a {manifest.kind} artifact, and only rewards are served here"
    else:
        fault = _find_missing_file(folder, manifest)
    if fault:
        return UnusableFolder(folder, state, f"{folder.name}: {fault}")
    names = tuple(each.name for each in manifest.objectives)
    return Source(folder, state, manifest, (clean_name(folder.name),) if names == (NAMELESS,) else names)


def _find_missing_file(folder: Path, manifest: Manifest) -> str | None:
    """Say which file is missing or shorter than its header says, as in a folder that is still copied."""
    for name in sorted(manifest.files):
        path = folder / name
        if not path.is_file():
            return f"{name} is missing; is it still being copied?"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                return f"{name} is not complete; is it still being copied? ({error})"
    return None


def _read_plain(folder: Path, places: Mapping[str, Path]) -> Source | UnusableFolder:
    state = compute_state(folder)
    if missing := _find_missing_shard(folder):
        return UnusableFolder(folder, state, f"{folder.name}: {missing} is missing; is it still being copied?")
    try:
        _refuse_quantised(folder)
        options = place_adapter_base(folder, NO_OPTIONS, places)
        manifest = describe_plain_reward(folder, options, unnamed=clean_name(folder.name), download=False).manifest
    except PlainError as error:
        return UnusableFolder(folder, state, _explain(folder, error), again=isinstance(error, MissingBase))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever a library raises for a strange file, also a panic of Rust code
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return UnusableFolder(folder, state, f"{folder.name} cannot be read ({reason})")
    base = Path(manifest.base.model) if manifest.base else None
    names = tuple(each.name for each in manifest.objectives)
    return Source(folder, compute_state(folder, base) if base else state, manifest, names, plain=True, base=base)


def _refuse_quantised(folder: Path) -> None:
    """Refuse quantised weights: the headers of packed files do not tell how much memory the weights will take.

    Raises:
        PlainError: they are quantised.
    """
    if quantisation := find_quantisation(read_json(folder / "config.json")):
        raise PlainError(
            f"{folder.name} is quantised ({name_quantisation(quantisation)}, by `quantization_config` of config.json), "
            f"and is not loaded on demand: make it an artifact with `tureen-train import {folder} OUT`, or serve it "
            f"with `--reward {folder}`"
        )


def _find_missing_shard(folder: Path) -> str | None:
    """Find a file of the weights that the index names and that is not there."""
    wanted: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        try:
            wanted |= set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return index.name
    return next((name for name in sorted(wanted) if is_own_name(name) and not (folder / name).is_file()), None)


def _explain(folder: Path, error: PlainError) -> str:
    """Say why a plain model is not offered. If a flag is needed, say how to give it: folders in a root have none."""
    text = str(error)
    named = text.startswith((f"{folder.name}:", f"{folder.name} ", str(folder)))
    reason = text if named else f"{folder.name}: {text}"
    flag = next((each for each in name_flags().values() if each in text), None)
    if flag is None:
        return reason
    return (
        f"{reason}. Folders in the rewards root have no flags: serve it with `--reward {folder} {flag} ...`, or make "
        f"it an artifact with `tureen-train import {folder} OUT {flag} ...`"
    )
