"""Write a new folder as a whole, or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fill_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target``. At the end it gets the target's name; after an error it is deleted.

    Raises:
        FileExistsError: the target holds something already.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise FileExistsError(f"{target} exists already: choose another folder, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
