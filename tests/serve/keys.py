"""Files of keys for tests."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tureen_serve.security.key_entries import make_key
from tureen_serve.security.scopes import ALL_SCOPES

KEY = "tur_9b1f4c07d2e85a36b0f9d7c4e1a28365"
OTHER = "tur_5c3a90e7b6f1d84287e0b3a9f65d1c42"


def write_lines(folder: Path, *lines: str) -> Path:
    """A file with one key a line."""
    path = folder / "keys"
    path.write_text("\n".join(lines))
    return path


def make_entry(name: str, scopes: Collection[str] = ALL_SCOPES, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A key, and its entry in a file."""
    key, known, digest = make_key()
    return key, {"id": known, "name": name, "scopes": sorted(map(str, scopes)), "digest": digest, **fields}


def write_entries(path: Path, *entries: dict[str, Any]) -> Path:
    """A file of entries."""
    path.write_text(json.dumps({"keys": entries}))
    return path


def bear(key: str) -> dict[str, str]:
    """The headers of a caller with a key."""
    return {"authorization": f"Bearer {key}"}
