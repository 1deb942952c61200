"""Digests of what was fetched.

The digest of an artifact is the SHA-256 of its ``tureen.json``, which holds those of all other files. The digest of an
archive is that of its file. Any other folder has that of its listing as ``sha256sum`` prints it, sorted by names.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tureen_core.manifest_file import LARGEST, MANIFEST, README
from tureen_core.own_files import PICKLES
from tureen_serve.fetching.entries import FetchError, is_safe_name

PREFIX = "sha256:"


def read_file_digests(manifest: bytes, shown: str) -> dict[str, str]:
    """Read from the bytes of a manifest the SHA-256 of each file. Serving checks all else.

    Raises:
        FetchError: it is no manifest, or names a file elsewhere or a pickle.
    """
    try:
        if len(manifest) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        files = json.loads(manifest)["files"]
        items = [(name, digest) for name, digest in files.items() if len(bytes.fromhex(digest)) == 32]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FetchError(f"{shown}: {MANIFEST} is no manifest of an artifact: {error}") from error
    if len(items) < len(files) or not files:
        raise FetchError(f"{shown}: {MANIFEST} must name files with a SHA-256 each")
    for name, _ in items:
        if not is_safe_name(name) or name in (MANIFEST, README):
            raise FetchError(f"{shown}: {MANIFEST} names {name[:200]!r}, which is no file of the artifact's folder")
        if Path(name).suffix.lower() in PICKLES:
            raise FetchError(f"{shown}: {name} may hold pickled code; artifacts are safetensors only")
    return dict(items)


def digest_listing(files: Mapping[str, str]) -> str:
    """Compute the digest of a folder from the SHA-256 of each file, by name.

    It is what ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` prints in the folder.
    """
    if MANIFEST in files:
        return f"{PREFIX}{files[MANIFEST]}"
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files, key=lambda each: each.encode()))
    return f"{PREFIX}{hashlib.sha256(lines.encode()).hexdigest()}"


def digest_bytes(content: bytes) -> str:
    """Compute the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()
