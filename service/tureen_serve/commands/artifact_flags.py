"""What a command's flags name, as settings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tureen_serve.settings import FamilyEntry, RewardEntry, SettingsError, build_starter_settings


def read_artifacts(with_starter: bool, rewards: Sequence[Path], experts: Sequence[Path]) -> dict[str, Any]:
    """The artifacts that flags name, the starter ones first; what they do not name is left to the file.

    Raises:
        SettingsError: there are no starter artifacts, or a folder holds no expert.
    """
    entries = build_starter_settings() if with_starter else {"rewards": [], "families": []}
    entries["rewards"] += [RewardEntry(path=path) for path in rewards]
    entries["families"] = group_experts(experts, entries["families"])
    return {name: found for name, found in entries.items() if found}


def group_experts(experts: Sequence[Path], known: Sequence[FamilyEntry] = ()) -> list[FamilyEntry]:
    """``known`` families and the folders of experts added to them, each to the family that its manifest names.

    Raises:
        SettingsError: a folder holds no expert.
    """
    found = {family.name: family for family in known}
    for path in experts:
        try:
            name = json.loads((path / "tureen.json").read_bytes())["steering"]["family"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{path} is no expert artifact: its tureen.json names no steering.family") from error
        family = found.get(name)
        folders = [*(family.experts if family else ()), path]
        found[name] = (
            family.model_copy(update={"experts": folders}) if family else FamilyEntry(name=name, experts=folders)
        )
    return list(found.values())
