"""Changes of a recipe before it is validated: ``--set``, and a user's own data in place of the recipe's."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tureen_train.config.parts import RecipeError

FAMILY_KIND = "family"
UNNAMED = "FILE"  # the path in recipes for a user's own file


@dataclass(frozen=True)
class OwnData:
    """A user's own files, as the command line names them: relative to where the user stands.

    Attributes:
        files: files or folders.
        renames: columns of theirs by the names that the forms know.
    """

    files: Sequence[Path]
    renames: Mapping[str, str] = field(default_factory=dict)


def use_own_data(raw: dict[str, Any], own: OwnData) -> None:
    """Put files in the place of a recipe's data. What belongs to its own files goes with them: licences, domains.

    Raises:
        RecipeError: a file is not there, or the recipe is one of a family or a front.
    """
    if "data" not in raw or raw.get("kind") == FAMILY_KIND:
        raise RecipeError("--data: this recipe names its data for each expert; change it with --set")
    found = [path.expanduser().resolve() for path in own.files]
    for path, named in zip(found, own.files, strict=True):
        if not path.exists():
            raise RecipeError(f"--data: there is no {named}, seen from {Path.cwd()}")
    root = Path(os.path.commonpath([path.parent for path in found]))
    renames = {"map": dict(own.renames)} if own.renames else {}
    sources = [{"path": path.relative_to(root).as_posix(), **renames} for path in found]
    raw["data"] = {**raw["data"], "root": str(root), "train": sources}
    raw["data"].pop("eval", None)
    raw["data"].pop("calibrate_on", None)
    raw.pop("licences", None)


def apply_changes(raw: dict[str, Any], changes: Sequence[str]) -> None:
    """Apply changes of the form ``a.b=c``. A path that is there where the user stands is that one.

    Raises:
        RecipeError: a change names no key of the recipe.
    """
    before = {key: (source, source.get("path")) for key, source in _sources(raw).items()}
    licences = {path: source.get("licence") for source, path in before.values()}
    for change in changes:
        _apply(raw, change)
    changed = {
        key: source
        for key, source in _sources(raw).items()
        if key not in before or before[key][0] is not source or before[key][1] != source.get("path")
    }
    if changed or before.keys() - _sources(raw).keys():
        _drop_licences(raw, changes)
        for key, source in changed.items():
            stale = key in before and before[key][0] is source and not _sets(changes, f"{key}.licence")
            if stale or source.get("licence") is None:
                source["licence"] = licences.get(source.get("path"))
        _resolve_paths(raw, changes)


def _sources(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The data files of a recipe, by the key that ``--set`` calls each."""
    before, part = _find_run(raw)
    data = part.get("data")
    if not isinstance(data, dict):
        return {}
    train, judged = data.get("train") or [], data.get("eval") or {}
    found = {f"train.{at}": each for at, each in enumerate(train)} if isinstance(train, list) else {}
    found |= {f"eval.{name}": each for name, each in judged.items()} if isinstance(judged, dict) else {}
    return {f"{before}data.{key}": each for key, each in found.items() if isinstance(each, dict)}


def _resolve_paths(raw: dict[str, Any], changes: Sequence[str]) -> None:
    """Make the paths of the changes absolute that are there, so that they do not stand below the recipe's root."""
    named = "\n".join(change for change in changes if "data." in change and not change.startswith("data.root"))
    if any(change.startswith(("data.root=", "expert.data.root=")) for change in changes):
        return
    for source in _sources(raw).values():
        path = str(source.get("path"))
        if path in named and Path(path).expanduser().exists():
            source["path"] = str(Path(path).expanduser().resolve())


def _find_run(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The part of a recipe that has ``data`` and ``licences``, and what stands before their keys in ``--set``."""
    expert = raw.get("expert")
    return ("expert.", expert) if raw.get("kind") == FAMILY_KIND and isinstance(expert, dict) else ("", raw)


def _drop_licences(raw: dict[str, Any], changes: Sequence[str]) -> None:
    """Drop the licences of all files together, unless a change names them: they are those of the files of before."""
    before, part = _find_run(raw)
    if not _sets(changes, f"{before}licences"):
        part.pop("licences", None)


def _sets(changes: Sequence[str], key: str) -> bool:
    """Whether one of the changes sets a key, or one below it."""
    return any(f"{change.partition('=')[0]}.".startswith(f"{key}.") for change in changes)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML. A fault is a :class:`RecipeError` that names ``where``."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: cannot read it as YAML: {' '.join(str(error).split())}") from error


def _apply(raw: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise RecipeError(f"--set {change!r}: write it as key.key=value")
    *parents, last = key.split(".")
    node: Any = raw
    for parent in parents:
        node = _step(node, parent, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = parse_yaml(value, f"--set {key}")
    elif isinstance(node, dict):
        node[last] = parse_yaml(value, f"--set {key}")
    else:
        raise RecipeError(f"--set {key}: {parents[-1]!r} has no keys")


def _step(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise RecipeError(f"--set {key}: {part!r} is not a group")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(f"--set {key}: {part!r} is not an index of a list of {len(node)}")
    return int(part)
