"""Open what a flag or a setting names: an artifact, or a plain folder that another library saved."""

from collections.abc import Mapping
from pathlib import Path

from tureen_core.artifact import MANIFEST, Artifact, open_artifact
from tureen_core.base import CACHE
from tureen_core.plain.bases import place_adapter_base
from tureen_core.plain.locate import locate_source
from tureen_core.plain.reward import open_plain_reward
from tureen_serve.settings import RewardEntry


class LoadError(RuntimeError):
    """The configuration cannot be served. The message names the part and the reason."""


def open_source(entry: RewardEntry, cache: Path = CACHE, places: Mapping[str, Path] | None = None) -> Artifact:
    """Open what an entry names: an artifact, or a plain folder as an artifact in memory.

    Args:
        cache: the folder for copies of what is behind URLs or is converted.
        places: the folders of bases, by the names that models have for them.

    Raises:
        LoadError: it is not a reward model, or options for plain folders were given for an artifact.
        ArtifactError: a file of an artifact is wrong.
        PlainError: a plain folder cannot be served as it is.
    """
    folder = locate_source(entry.path, cache, tried=entry.tried)
    if not (folder / MANIFEST).exists():
        options = place_adapter_base(folder, entry.options, places or {})
        return open_plain_reward(folder, options, entry.name, cache)
    if given := entry.options.model_dump(exclude_defaults=True):
        raise LoadError(f"{next(iter(given))}: {folder} is an artifact, and its manifest tells this; leave it out")
    return open_kind(folder, "reward")


def open_kind(path: Path, kind: str) -> Artifact:
    """Open an artifact of one kind.

    Raises:
        LoadError: it is of another kind.
        ArtifactError: a file of the artifact is wrong.
    """
    artifact = open_artifact(path)
    if artifact.manifest.kind != kind:
        raise LoadError(f"{path} is a {artifact.manifest.kind} artifact; a {kind} is expected here")
    return artifact
