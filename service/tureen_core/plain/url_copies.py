"""Models behind fsspec URLs, as ``s3://bucket/model``: copied once into the cache, and again when they have changed.

Of each URL the copies that were used last and before it are kept, since a server may still run on the older one.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tureen_core.plain.options import PlainError

LARGEST_COUNT = 10_000
KEPT = 2  # copies of a URL
UNFINISHED_SECONDS = 86_400  # after which a copy that has not ended is one of a process that was killed
S3 = ("s3://", "s3a://")
# what file systems call the state of a file; one of them must be told beside its size
STATES = ("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created")


def copy_from_url(url: str, cache: Path) -> Path:
    """Copy a folder behind a URL into ``cache/sources``, unless an equal copy is there. Remove its oldest copies.

    Copies are equal if the names, sizes and times or ETags of all files are. A copy appears as a whole or not at all.

    Raises:
        PlainError: the URL cannot be read, holds no files, changes meanwhile, or does not fit on the disk.
    """
    try:
        import fsspec
    except ImportError as error:
        raise PlainError(f"{url}: a URL needs fsspec; pip install fsspec, or copy the model to this machine") from error
    shown = re.sub(r"//[^/@]*@", "//", url)  # without a password
    try:
        system, root = fsspec.url_to_fs(url)
        system.invalidate_cache()
        listing = _list_files(system, root, shown)
        state = hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:24]
        copies = cache / "sources" / hashlib.sha256(url.encode()).hexdigest()[:24]
        target = copies / state / Path(root.rstrip("/")).name
        if not target.is_dir():
            _copy(system, root, listing, target, shown)
        os.utime(target.parent)
        _remove_oldest(copies, target.parent)
    except (ImportError, OSError, ValueError) as error:
        if isinstance(error, PlainError):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ImportError) and url.startswith(S3):
            reason = "its package is not installed: pip install 'tureen[s3]'"
        raise PlainError(f"{shown} cannot be read: {reason}") from error
    return target


def _list_files(system: Any, root: str, shown: str) -> dict[str, list[str]]:
    """List the files of a folder: the size and the state of each by its relative name."""
    start = f"{root.rstrip('/')}/"
    listing = {}
    for path, facts in sorted(system.find(root, detail=True).items()):
        name = path.removeprefix(start)
        if name == path or ".." in Path(name).parts:
            raise PlainError(f"{shown} is no folder: name the folder that holds config.json")
        listing[name] = [str(facts.get("size")), _read_state(facts, f"{shown}/{name}")]
    if not listing:
        raise PlainError(f"{shown} holds no files")
    if len(listing) > LARGEST_COUNT:
        raise PlainError(f"{shown} holds {len(listing)} files, more than {LARGEST_COUNT}: name the model's own folder")
    return listing


def _read_state(facts: Mapping[str, Any], place: str) -> str:
    for name in STATES:
        if facts.get(name) is not None:
            return str(facts[name])
    raise PlainError(f"{place}: this store tells no time of its files; copy the model to this machine")


def _copy(system: Any, root: str, listing: Mapping[str, list[str]], target: Path, shown: str) -> None:
    parent = target.parent.parent  # of all copies of the URL
    parent.mkdir(parents=True, exist_ok=True)
    size = sum(int(each[0]) for each in listing.values())
    if size > shutil.disk_usage(parent).free:
        raise PlainError(f"{shown} has {size} bytes, more than are free in {parent}; set `cache` to another disk")
    scratch = Path(tempfile.mkdtemp(prefix=".copy-", dir=parent))
    try:
        for name, (wanted, _) in listing.items():
            path = scratch / target.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(f"{root.rstrip('/')}/{name}", str(path))
            if path.stat().st_size != int(wanted):
                raise PlainError(f"{shown}/{name} has {wanted} bytes and {path.stat().st_size} came; try again")
        system.invalidate_cache()
        if _list_files(system, root, shown) != listing:
            raise PlainError(f"{shown} changed while it was copied; try again")
        scratch.chmod(0o755)
        try:
            scratch.replace(target.parent)
        except OSError:  # another process copied it meanwhile
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_oldest(copies: Path, newest: Path) -> None:
    """Remove all copies but those that were used last, and what killed processes left."""
    found = {each: each.stat().st_mtime for each in copies.iterdir() if each != newest}
    old = sorted((each for each in found if not each.name.startswith(".")), key=lambda each: found[each])
    left = [each for each in found if each.name.startswith(".") and found[each] < time.time() - UNFINISHED_SECONDS]
    for each in [*old[: len(old) - (KEPT - 1)], *left]:
        shutil.rmtree(each, ignore_errors=True)
