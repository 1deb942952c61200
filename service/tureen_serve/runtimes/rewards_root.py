"""The folders of a rewards root: which models could be loaded from it, and how one is opened."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tureen_serve.runtimes.artifacts import open_reward
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import OpenedReward
from tureen_serve.runtimes.root_folder import Source, UnusableFolder, read_folder
from tureen_serve.settings import RewardEntry


def list_sources(
    root: Path,
    known: Mapping[Path, Source | UnusableFolder],
    started: Collection[Path] = (),
    places: Mapping[str, Path] | None = None,
) -> list[Source | UnusableFolder]:
    """List the models directly in ``root``: artifacts and plain models. Hidden folders are left out.

    Args:
        known: what an earlier call found, by folder. A folder whose state is the same is not read again.
        started: folders that are left out too.
        places: the folders of bases, by the names that models have for them.

    Raises:
        OSError: the root cannot be read.
    """
    found: list[Source | UnusableFolder] = []
    for folder in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
        if folder.resolve() in started:
            continue
        try:
            read = read_folder(folder, known.get(folder), root, places)
        except OSError:  # it disappeared meanwhile, or may not be read
            continue
        if read is not None:
            found.append(read)
    return found


def open_offered(source: Source, bases: Bases, dtype: str) -> OpenedReward:
    """Open a source: verify the files of an artifact, or score the probes of a plain model by its own library.

    Raises:
        LoadError, ArtifactError, BaseError, PlainError: as :func:`tureen_serve.runtimes.artifacts.open_reward`.
    """
    if source.plain:
        base = None if source.base is None else str(source.base)
        return open_reward(RewardEntry(path=source.folder, objectives=source.names, adapter_base=base), bases, dtype)
    written = tuple(each.name for each in source.manifest.objectives)
    name = None if source.names == written else source.names[0]
    return open_reward(RewardEntry(path=source.folder, name=name), bases, dtype)


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
            remedy = "leave one out, or import it with other --objectives and --name"
            found[source.folder] = f"{label}: {reason}; {remedy}"
    return found


def _explain_clash(what: str, name: str, folders: Sequence[str], used: bool) -> str | None:
    if used:
        return f"the server was started with another {what} or alias called {name!r}"
    if len(folders) > 1:
        return f"two {what}s are called {name!r}, in {folders[0]} and {folders[1]}"
    return None
