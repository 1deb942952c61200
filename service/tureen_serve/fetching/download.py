"""Download files into a folder, each from where an interrupted download left it."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tureen_serve.fetching.entries import FetchError, explain_error
from tureen_serve.fetching.remote_files import RemoteFile, RemoteFolder

T = TypeVar("T")
FILES_AT_ONCE = 4
TRIES = 4  # without progress; stores' libraries try again themselves
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
HASHED_BYTES = 2**20
Progress = Callable[[int], None]  # is told of bytes that came


class _WriteFailed(FetchError):
    """The disk failed, so another try would not help."""


def retry_call(call: Callable[[], T], shown: str, tries: int, wait: Callable[[float], object]) -> T:
    """Call again, up to ``tries`` times and after growing pauses, while the source cannot be reached.

    Raises:
        FetchError: it still cannot, or another try would not help.
    """
    for attempt in range(tries):
        try:
            return call()
        except OSError as error:
            if isinstance(error, FINAL) or attempt == tries - 1:
                raise FetchError(f"{shown} cannot be read: {explain_error(error)}") from error
            wait(2.0**attempt)
    raise AssertionError


class Downloader:
    """Downloads files of a source into a folder.

    Args:
        shown: the source's name for errors.
        progress: is told of bytes that came, from several threads.
    """

    def __init__(
        self, source: RemoteFolder, folder: Path, shown: str, progress: Progress, wait: Callable[[float], object]
    ) -> None:
        self._source = source
        self._folder = folder
        self._shown = shown
        self._progress = progress
        self._wait = wait
        self._stopped = threading.Event()

    def fetch_all(self, files: Mapping[str, RemoteFile]) -> dict[str, str]:
        """Download files, some at once, and return the SHA-256 of each.

        Raises:
            FetchError: a file cannot be downloaded, or its digest or size is not the one that is known.
        """
        self._check_room(files)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            running = {name: pool.submit(self.fetch_one, name, file) for name, file in files.items()}
            try:
                return {name: future.result() for name, future in running.items()}
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def fetch_one(self, name: str, file: RemoteFile) -> str:
        """Download a file and return its SHA-256. See :meth:`fetch_all`."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = path.exists() and path.stat().st_size > 0
        try:
            return self._check(name, file, self._complete(name, file, path))
        except _WriteFailed:
            raise
        except FetchError:
            if not resumed or self._stopped.is_set():
                raise
            path.unlink(missing_ok=True)  # what an earlier try left may be damaged
            return self._check(name, file, self._complete(name, file, path))

    def _complete(self, name: str, file: RemoteFile, path: Path) -> str:
        """Append to a file until it is whole. Progress begins the count of tries anew."""
        attempt = 0
        while True:
            before = path.stat().st_size if path.exists() else 0
            try:
                return self._append(name, file, path)
            except OSError as error:
                attempt = 1 if path.exists() and path.stat().st_size > before else attempt + 1
                if isinstance(error, FINAL) or attempt == TRIES:
                    raise FetchError(f"{self._shown}: {name} cannot be read: {explain_error(error)}") from error
                self._wait(2.0 ** (attempt - 1))

    def _append(self, name: str, file: RemoteFile, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("ab+") as out:
            if file.size is not None and out.tell() > file.size:
                out.truncate(0)
            out.seek(0)
            while part := out.read(HASHED_BYTES):
                digest.update(part)
            size = start = out.tell()
            if file.size is None or size < file.size:
                for part in self._source.read(name, start):
                    if self._stopped.is_set():
                        raise FetchError("stopped")
                    self._write(out.fileno(), part, name)
                    digest.update(part)
                    size += len(part)
                    self._progress(len(part))
            if file.size is not None and size < file.size:
                raise OSError(f"{size} of {file.size} bytes came")
            os.fsync(out.fileno())
        return digest.hexdigest()

    def _write(self, handle: int, part: bytes, name: str) -> None:
        view = memoryview(part)
        try:
            while view:
                view = view[os.write(handle, view) :]
        except OSError as error:
            raise _WriteFailed(f"{self._folder / name} cannot be written: {explain_error(error)}") from error

    def _check(self, name: str, file: RemoteFile, digest: str) -> str:
        size = (self._folder / name).stat().st_size
        if file.size is not None and size != file.size:
            raise FetchError(f"{self._shown}: {name} has {file.size} bytes and {size} came; fetch it again")
        if file.sha256 is not None and digest != file.sha256:
            (self._folder / name).unlink()
            raise FetchError(f"{self._shown}: {name} has the SHA-256 {digest}, and {file.sha256} is wanted")
        return digest

    def _check_room(self, files: Mapping[str, RemoteFile]) -> None:
        there = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        size = sum(file.size or 0 for file in files.values()) - there
        if size > shutil.disk_usage(self._folder).free:
            raise FetchError(f"{self._shown} needs {size} more bytes than are free at {self._folder.parent}")
