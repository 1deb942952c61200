"""Write files atomically: a file is complete or absent, and survives a power cut once written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. On success the file written there is synced and replaces ``path``.

    Raises:
        OSError: the file cannot be written or moved.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        _sync(part)
        move_into_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def move_into_place(made: Path, path: Path) -> None:
    """Move a synced file to ``path`` and sync the folder."""
    os.replace(made, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that new files in it survive a power cut."""
    if os.name == "posix":  # folders cannot be synced elsewhere
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
