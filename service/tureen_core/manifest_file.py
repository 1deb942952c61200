"""The file of a manifest. A file that is too large to be one is refused before it is read."""

import hashlib
from pathlib import Path

MANIFEST = "tureen.json"
README = "README.md"  # the only other file that the manifest does not list
LARGEST = 8 * 2**20  # bytes; a manifest with a hundred probes has some 200 KB


class ManifestFileError(ValueError):
    """A manifest that is missing or too large."""


def read_manifest_bytes(path: Path) -> bytes:
    """Read the bytes of a manifest.

    Raises:
        ManifestFileError: there is no such file, or it is too large.
    """
    if not path.is_file():
        raise ManifestFileError(
            f"{path.parent} has no {path.name}, so it is no artifact: export a run with tureen-train export, or turn a "
            "model of others into one with tureen-train import"
        )
    size = path.stat().st_size
    if size > LARGEST:
        raise ManifestFileError(
            f"{path} has {size} bytes, and a manifest has at most {LARGEST}; copy the artifact again"
        )
    return path.read_bytes()


def digest_file(path: Path) -> str:
    """Compute the SHA-256 of a file, as the manifest has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
