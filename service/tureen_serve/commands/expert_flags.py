"""Turn the flags of experts and policies into policy families."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tureen_core.manifest_file import MANIFEST, ManifestFileError, read_manifest_bytes
from tureen_core.preference import NAME
from tureen_serve.settings import FamilyEntry, SettingsError


@dataclass(frozen=True)
class ExpertFlags:
    """The flags of experts and policies.

    Attributes:
        folders: of ``--expert``: the folder of an artifact, or ``NAME=FOLDER``.
        base: of ``--base``.
        family: of ``--family``.
        rank: of ``--rank``.
        energy: of ``--energy``.
        accept_energy: of ``--accept-energy``.
        policies: of ``--policy``: the folder of a policy that is steered in its prompt, or ``NAME=FOLDER``.
    """

    folders: Sequence[str] = ()
    base: str | None = None
    family: str | None = None
    rank: int | None = None
    energy: float | None = None
    accept_energy: float | None = None
    policies: Sequence[str] = ()


NO_EXPERTS = ExpertFlags()
FLAGS = {"reward": "--reward", "expert": "--expert", "policy": "--policy"}


@dataclass(frozen=True)
class _Kind:
    """A kind of artifact, and what to do with a folder that is none."""

    name: str
    called: str
    advice: str


EXPERT = _Kind("expert", "an expert artifact", "give an adapter or a model of others with a name, as --expert NAME=")
POLICY = _Kind("policy", "a policy artifact", "a base that is only told what is wanted stands in --config: ")


def group_experts(flags: ExpertFlags, known: Sequence[FamilyEntry] = ()) -> list[FamilyEntry]:
    """Add experts to ``known`` families.

    The manifest of an artifact names its family. Experts of others join ``--family``; or else the only family of the
    artifacts beside them; or else, without ``--base``, the only known family; or else a family with the base's name.
    ``--base`` alone makes a family without experts. Each policy is a family of its own.

    Raises:
        SettingsError: a folder has no expert, or no family or base follows from the flags.
    """
    families = {family.name: family.model_dump(exclude_unset=True) for family in known}
    choice = {"rank": flags.rank, "energy": flags.energy, "accept_energy": flags.accept_energy}
    touched: dict[str, None] = {}  # in order
    plain: list[dict[str, Any]] = []
    for text in flags.folders:
        path, name = _split_expert(text)
        if name is not None and not (path / MANIFEST).is_file():
            plain.append({"path": path, "name": name, **choice})
        else:
            family = _read_family(path)
            _join_family(families, family, [{"path": path, "name": name}])
            touched[family] = None
    if plain or (flags.base is not None and not touched):
        candidates = list(touched) or ([] if flags.base else list(families))
        family = flags.family or _choose_family(flags.base, candidates)
        _join_family(families, family, plain)
        touched[family] = None
    elif flags.family is not None or any(value is not None for value in choice.values()):
        raise SettingsError("--family, --rank and --energy are for experts of others: give --expert NAME=FOLDER")
    if flags.base is not None:
        for family in touched:
            families[family]["base"] = flags.base
    return [*(_make_family(fields) for fields in families.values()), *map(_read_policy, flags.policies)]


def _read_policy(text: str) -> FamilyEntry:
    path, name = _split_expert(text)
    return _make_family({"name": name or _read_family(path, POLICY), "policy": path})


def _split_expert(text: str) -> tuple[Path, str | None]:
    """Split ``NAME=FOLDER``. A folder may have an equals sign in its own name."""
    name, sign, folder = text.partition("=")
    if sign and NAME.fullmatch(name) and not Path(text).exists():
        return Path(folder), name
    return Path(text), None


def _read_family(path: Path, kind: _Kind = EXPERT) -> str:
    try:
        manifest = json.loads(read_manifest_bytes(path / MANIFEST))
        found = manifest.get("kind", kind.name)
        if found != kind.name and found in FLAGS:
            raise SettingsError(f"{path} is a {found} artifact: give it with {FLAGS[found]} {path}")
        family = manifest["steering"]["family"]
    except ManifestFileError as error:
        raise SettingsError(f"{path} is not {kind.called}: {error}; {kind.advice}{path}") from error
    except (
        OSError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise SettingsError(
            f"{path} is not {kind.called}: it needs a {MANIFEST} with `steering.family`; {kind.advice}{path}"
        ) from error
    return str(family)


def _choose_family(base: str | None, candidates: Sequence[str]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise SettingsError(f"--family: say which one the experts of others join: {', '.join(candidates)}")
    if base is None:
        raise SettingsError("--base: say which model the experts of others stand on")
    name = Path(base).name
    if not NAME.fullmatch(name):
        raise SettingsError(f"--family: give the family a name, since {base!r} cannot be one")
    return name


def _join_family(families: dict[str, dict[str, Any]], name: str, experts: Sequence[dict[str, Any]]) -> None:
    fields = families.setdefault(name, {"name": name})
    fields["experts"] = [*fields.get("experts", []), *experts]


def _make_family(fields: dict[str, Any]) -> FamilyEntry:
    try:
        return FamilyEntry(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = "family" if first["loc"] == ("name",) else str(first["loc"][-1]).replace("_", "-")
        raise SettingsError(f"--{where}: {first['msg'].removeprefix('Value error, ')}") from error
