"""The licences of imported weights: as the user says them, or as the model cards of the source and the base do."""

from collections.abc import Sequence
from pathlib import Path

import yaml


class LicenceError(ValueError):
    """Nobody says under which licence imported weights are."""


def find_licences(told: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Find the licences of imported weights.

    Args:
        told: what the user says; it goes before the cards.
        folders: of the source and of its base. Each card's licence is listed once.

    Raises:
        LicenceError: neither the user nor a card names one.
    """
    found = [str(each) for each in told] or [licence for folder in folders if (licence := read_card_licence(folder))]
    if not found:
        raise LicenceError("no model card names a licence: say it with --licence, as --licence Apache-2.0")
    return list(dict.fromkeys(found))


def read_card_licence(folder: Path) -> str | None:
    """Read the licence in the front matter of a folder's ``README.md``; None if it names none."""
    try:
        parts = (folder / "README.md").read_text(encoding="utf-8").split("---\n")
        matter = yaml.safe_load(parts[1]) if parts[0] == "" and len(parts) > 2 else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(matter, dict):
        return None
    licence = matter.get("license_name") if matter.get("license") == "other" else matter.get("license")
    return str(licence) if licence else None
