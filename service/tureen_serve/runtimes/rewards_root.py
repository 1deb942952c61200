"""The folders of a rewards root: which models could be loaded from it. Reads manifests and headers, never weights.

:func:`list_sources` and :func:`open_offered` are the only places that know what a source may be.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tureen_core.artifact import MANIFEST, Artifact, ArtifactError, Manifest, read_manifest
from tureen_core.calibration import Calibration
from tureen_serve.runtimes.artifacts import Bases, OpenedReward, open_reward
from tureen_serve.settings import RewardEntry


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
    """

    folder: Path
    state: str
    manifest: Manifest

    @property
    def key(self) -> tuple[Path, str]:
        """What tells it from other sources."""
        return self.folder, self.state

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its rewards."""
        return tuple(each.name for each in self.manifest.objectives)

    @property
    def offers(self) -> "tuple[OfferedReward, ...]":
        """Its rewards, as far as the manifest describes them."""
        return tuple(OfferedReward(each.name, self.artifact, each.calibration) for each in self.manifest.objectives)

    @property
    def artifact(self) -> Artifact:
        """The artifact as its manifest describes it; its files are not verified yet."""
        return Artifact(self.folder, self.manifest)


PLAIN = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class UnusableFolder:
    """A folder that looks like a model and cannot be offered. ``reason`` names the folder and says why."""

    folder: Path
    state: str
    reason: str


def list_sources(root: Path, known: Mapping[Path, Source | UnusableFolder]) -> list[Source | UnusableFolder]:
    """List the models directly in ``root``: each folder with a manifest. Hidden folders are left out.

    Args:
        known: what an earlier call found, by folder. A folder whose state is the same is not read again.

    Raises:
        OSError: the root cannot be read.
    """
    found: list[Source | UnusableFolder] = []
    for folder in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
        try:
            plain = not (folder / MANIFEST).is_file()
            if plain and not any((folder / name).is_file() for name in PLAIN):
                continue
            state = compute_state(folder)
        except OSError:  # it disappeared meanwhile, or may not be read
            continue
        before = known.get(folder)
        if before is not None and before.state == state:
            found.append(before)
        elif plain:
            reason = f"{folder.name} has no {MANIFEST}; make it an artifact with tureen-train import {folder} OUT"
            found.append(UnusableFolder(folder, state, reason))
        else:
            found.append(_read(folder, state))
    return found


def open_offered(source: Source, bases: Bases, dtype: str) -> OpenedReward:
    """Verify the files of a source and open it.

    Raises:
        LoadError, ArtifactError, BaseError: as :func:`tureen_serve.runtimes.artifacts.open_reward`.
    """
    return open_reward(RewardEntry(path=source.folder), bases, dtype)


def compute_state(folder: Path) -> str:
    """Digest the names, sizes and times of a folder's files.

    Raises:
        OSError: the folder cannot be read.
    """
    facts = []
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(place) / name
            status = path.lstat()
            facts.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns, status.st_ino))
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise error


def _read(folder: Path, state: str) -> Source | UnusableFolder:
    try:
        manifest = read_manifest(folder)
    except (ArtifactError, OSError) as error:
        return UnusableFolder(folder, state, str(error))
    fault = _find_kind_fault(manifest) or _find_missing_file(folder, manifest)
    return UnusableFolder(folder, state, f"{folder.name}: {fault}") if fault else Source(folder, state, manifest)


def _find_kind_fault(manifest: Manifest) -> str | None:
    return None if manifest.kind == "reward" else f"it is a {manifest.kind} artifact, and only rewards are served here"


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


def find_clashes(
    sources: Sequence[Source], rewards: Collection[str], artifacts: Collection[str] = ()
) -> dict[Path, str]:
    """Find the sources that cannot be offered because of a name, and say why. Of two equal names neither is offered.

    Args:
        rewards: names of rewards and aliases that are already used.
        artifacts: names of artifacts that are already used.
    """
    owners, twins = defaultdict(list), defaultdict(list)
    for source in sources:
        twins[source.manifest.name].append(source.folder.name)
        for name in source.names:
            owners[name].append(source.folder.name)
    found: dict[Path, str] = {}
    for source in sources:
        label, name = source.folder.name, source.manifest.name
        reasons = [_explain_clash("reward", each, owners[each], each in rewards) for each in source.names]
        reasons.append(_explain_clash("reward artifact", name, twins[name], name in artifacts))
        if reason := next(filter(None, reasons), None):
            found[source.folder] = f"{label}: {reason}; leave one out, or import it with other --objectives and --name"
    return found


def _explain_clash(what: str, name: str, folders: Sequence[str], used: bool) -> str | None:
    if used:
        return f"the server was started with another {what} or alias called {name!r}"
    if len(folders) > 1:
        return f"two {what}s are called {name!r}, in {folders[0]} and {folders[1]}"
    return None
