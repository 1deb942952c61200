"""Bytes under keys, in whatever store fsspec reaches: a local folder by default.

A key is written once and never again. What is written counts when the database says so; a local file is on the disk
by then. Calls block: they are for threads.
"""

import hashlib
import logging
import os
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tureen.errors import PayloadTooLarge, Unavailable
from tureen_serve.batches.database import StoreError
from tureen_serve.batches.records import StoredFile

LOG = logging.getLogger(__name__)
PART = 2**20


class FileStore:
    """A store of files.

    Args:
        url: a folder, or fsspec's URL of one.

    Raises:
        StoreError: fsspec knows no such store, or the package for it is missing.
        Unavailable: it cannot be reached or written.
    """

    def __init__(self, url: str) -> None:
        _check_known(url)
        with _reached(url):
            # what another replica has written just now is in no list of before
            self._system, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self._local = isinstance(self._system, LocalFileSystem)
            self._system.makedirs(self._root, exist_ok=True)
            if self._local and not os.access(self._root, os.W_OK):
                raise PermissionError(f"{self._root} cannot be written")

    def write(self, key: str, parts: Iterable[bytes], limit: int | None = None) -> StoredFile:
        """Store bytes under a new key.

        Raises:
            PayloadTooLarge: there are more than ``limit``; nothing is left of them.
            Unavailable: the store cannot be written.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with _reached(key), self._created(key) as file:
                for part in parts:
                    digest.update(part)
                    size += file.write(part)
                    if limit is not None and size > limit:
                        raise PayloadTooLarge(f"the file is over {limit} bytes; send it in parts", param="file")
        except BaseException:
            self.remove(key)
            raise
        return StoredFile(key, size, digest.hexdigest())

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes, in parts.

        Raises:
            Unavailable: the store cannot be read.
        """
        with _reached(key), self._system.open(self._path(key), "rb") as file:
            while part := file.read(PART):
                yield part

    def slice(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``.

        Raises:
            Unavailable: the store cannot be read.
        """
        with _reached(key):
            found: bytes = self._system.cat_file(self._path(key), start=start, end=start + length)
            return found

    def remove(self, key: str) -> None:
        """Delete what is under the key, if there is anything."""
        with _reached(key), suppress(FileNotFoundError):
            self._system.rm_file(self._path(key))

    def sweep(self, folder: str, keep: Iterable[str] = ()) -> None:
        """Delete what is under keys that start with ``folder/``, but for those to ``keep``."""
        kept = {self._path(key) for key in keep}
        with _reached(folder), suppress(FileNotFoundError):
            for path in self._system.find(self._path(folder)):
                if path not in kept:
                    self._system.rm_file(path)
            if not kept:
                self._system.rm(self._path(folder), recursive=True)

    def _path(self, key: str) -> str:
        return posixpath.join(self._root, key)

    @contextmanager
    def _created(self, key: str) -> Iterator[IO[bytes]]:
        path = self._path(key)
        self._system.makedirs(posixpath.dirname(path), exist_ok=True)
        with self._system.open(path, "wb") as file:
            yield file
            if self._local:
                file.flush()
                os.fsync(file.fileno())
        if self._local:
            _sync_folder(Path(path).parent)


def _check_known(url: str) -> None:
    protocol, separator, _ = url.partition("://")
    try:
        if separator:
            fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = "pip install 'tureen[s3]'" if protocol in ("s3", "s3a") else str(error)
        raise StoreError(f"batches.files: {protocol}:// needs a package that is not installed: {extra}") from error
    except ValueError as error:
        raise StoreError(f"batches.files: {error}") from error


@contextmanager
def _reached(what: str) -> Iterator[None]:
    """An error of the store is one of the server: callers are not told of its paths, the log is."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        LOG.warning("the store of files cannot be used (%s): %s", what, error)
        message = "the store of files cannot be used; the server's log says why"
        raise Unavailable(message, code="store_unavailable", retry_after=5) from error


def _sync_folder(folder: Path) -> None:
    """A new file is there after a power cut only if its folder is on the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
