"""A file that is there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to. What stands there at the end takes the place of ``path``, for good.

    Raises:
        OSError: it cannot be put there.
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
    """Put a file that is on the disk in the place of ``path``, for good."""
    os.replace(made, path)
    if os.name == "posix":  # folders cannot be synced elsewhere
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
