"""The folder that a model is fetched to: it appears as a whole, and a record beside it says what it must hold.

Beside the folder ``NAME`` lies ``.tureen-fetch`` with ``NAME.json``, the record; ``NAME.lock``; and ``NAME.part``, what
an interrupted fetch left.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tureen.atomic_files import replace_atomically, sync_folder
from tureen_core.manifest_file import digest_file
from tureen_serve.fetching.entries import FetchError

BESIDE = ".tureen-fetch"


@dataclass(frozen=True)
class Record:
    """What a folder holds since its last fetch.

    Attributes:
        source: :attr:`FetchEntry.known` of where it came from.
        digest: the digest by which a later fetch knows it again.
        state: a text that changes when the source does.
        files: the SHA-256 of each file, by its name.
    """

    source: str
    digest: str
    state: str
    files: Mapping[str, str]


class FetchedFolder:
    """A folder that a model is fetched to.

    Raises:
        FetchError: it is a link or a file, or the folder that holds it cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.expanduser().absolute()
        if ".." in self.target.parts:
            raise FetchError(f"{target} holds `..`; name the folder itself")
        if not self.target.name:
            raise FetchError(f"{target} cannot be replaced; name a folder in it")
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_dir()):
            raise FetchError(f"{target} is a link or a file; name a folder")
        beside = self.target.parent / BESIDE
        if beside.is_symlink():
            raise FetchError(f"{beside} is a link; remove it")
        try:
            beside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FetchError(f"{self.target.parent} cannot be written: {error.strerror}") from error
        if self.target.is_mount():
            raise FetchError(f"{target} is a mount, which cannot be replaced as a whole; name a folder in it")
        self.part = beside / f"{self.target.name}.part"
        self.scratch = self.part / "files"
        self._record = beside / f"{self.target.name}.json"
        self._lock = beside / f"{self.target.name}.lock"
        self._old = beside / f"{self.target.name}.old"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes that fetch to this folder out; wait for one that does."""
        try:
            with self._lock.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except PermissionError as error:
            raise FetchError(
                f"{error.filename or self._lock} cannot be written; fetch as the user who owns it"
            ) from error

    def read_record(self) -> Record | None:
        """Read the record of the last fetch; None if there is none."""
        try:
            found = json.loads(self._record.read_bytes())
            return Record(found["source"], found["digest"], found["state"], dict(found["files"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_intact(self, record: Record) -> bool:
        """Whether the folder holds the files of a record and no others, each with its digest."""
        found = {}
        for path in self.target.rglob("*"):
            if path.is_symlink():
                return False
            if path.is_file():
                found[path.relative_to(self.target).as_posix()] = path
        return set(found) == set(record.files) and all(digest_file(found[name]) == record.files[name] for name in found)

    def check_replaceable(self) -> None:
        """Check that the folder is absent or empty, or an earlier fetch made it.

        Raises:
            FetchError: it is not.
        """
        if self.target.is_dir() and any(self.target.iterdir()) and not self._record.is_file():
            raise FetchError(f"{self.target} is there, and no fetch made it: remove it, or name another folder")

    def resume(self, source: str, states: Mapping[str, str]) -> None:
        """Prepare the scratch folder. What an interrupted fetch left stays if it is of the same files.

        Args:
            source: the source's name.
            states: the state of each file.
        """
        journal = self.part / "journal.json"
        before = _read_map(journal)
        same = before.get("source") == source and not self.scratch.is_symlink()
        kept = {name: state for name, state in states.items() if same and before.get("states", {}).get(name) == state}
        if not same:
            shutil.rmtree(self.part, ignore_errors=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.scratch.rglob("*"), reverse=True):
            if path.is_symlink() or (path.is_file() and path.relative_to(self.scratch).as_posix() not in kept):
                path.unlink()
        with replace_atomically(journal) as out:
            out.write_text(json.dumps({"source": source, "states": dict(states)}))

    def publish(self, made: Path, record: Record) -> None:
        """Put ``made`` in the folder's place, with its record. Whenever this is killed, the next fetch mends it.

        Raises:
            FetchError: it cannot be moved there.
        """
        try:
            with replace_atomically(self._record) as out:
                out.write_text(json.dumps(asdict(record), indent=1))
            shutil.rmtree(self._old, ignore_errors=True)
            if self.target.is_dir() and any(self.target.iterdir()):
                self.target.replace(self._old)
            os.replace(made, self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise FetchError(f"{self.target} cannot be replaced: {error.strerror}") from error
        for path in (self._old, self.part):
            shutil.rmtree(path, ignore_errors=True)


def _read_map(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
