"""Write a new folder as a whole, or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tureen_core.artifact import MANIFEST


@contextmanager
def fill_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder of the target's name. At the end it takes the target's place; after an error it is deleted.

    Args:
        overwrite: whether an artifact that is there already is replaced.

    Raises:
        FileExistsError: the target holds something already.
    """
    filled = target.is_file() or (target.is_dir() and any(target.iterdir()))
    if filled and not overwrite:
        raise FileExistsError(f"{target} exists already: choose another folder, or replace it with --overwrite")
    if filled and not (target / MANIFEST).is_file():
        raise FileExistsError(f"{target} is no artifact, which --overwrite could replace: choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    folder = scratch / target.name
    try:
        folder.mkdir()
        yield folder
        if filled:
            target.replace(scratch / "replaced")
        folder.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
