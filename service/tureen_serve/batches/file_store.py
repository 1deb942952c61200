"""Files under keys, in any store that fsspec reaches: a local folder by default.

A key is written once. A file counts once the database has committed its key, and a local file is synced to the disk
before that. Calls block, so call them in threads.
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

from tureen.atomic_files import sync_folder
from tureen.errors import PayloadTooLarge, Unavailable
from tureen_serve.batches.database import StoreError
from tureen_serve.batches.records import StoredFile

LOG = logging.getLogger(__name__)
PART_BYTES = 2**20


class FileStore:
    """A store of files.

    Args:
        url: a local folder, or an fsspec URL of a folder, as ``s3://bucket/tureen``.

    Raises:
        StoreError: fsspec does not know this kind of store, or its package is missing.
        Unavailable: the store cannot be reached or written.
    """

    def __init__(self, url: str) -> None:
        _check_known(url)
        with _reporting_failure(url):
            # a cached listing would miss files that another replica has just written
            self._system, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self._local = isinstance(self._system, LocalFileSystem)
            self._system.makedirs(self._root, exist_ok=True)
            if self._local and not os.access(self._root, os.W_OK):
                raise PermissionError(f"{self._root} cannot be written")

    def write(self, key: str, parts: Iterable[bytes], limit: int | None = None) -> StoredFile:
        """Store bytes under a new key.

        Raises:
            PayloadTooLarge: there are more than ``limit`` bytes; none of them is kept.
            Unavailable: the store cannot be written.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with _reporting_failure(key), self._created(key) as file:
                for part in parts:
                    digest.update(part)
                    size += file.write(part)
                    if limit is not None and size > limit:
                        raise PayloadTooLarge(f"the file is over {limit} bytes; split it into several", param="file")
        except BaseException:
            self.remove(key)
            raise
        return StoredFile(key, size, digest.hexdigest())

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a file in parts.

        Raises:
            Unavailable: the store cannot be read.
        """
        with _reporting_failure(key), self._system.open(self._path(key), "rb") as file:
            while part := file.read(PART_BYTES):
                yield part

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes of a file from ``start``.

        Raises:
            Unavailable: the store cannot be read.
        """
        with _reporting_failure(key):
            found: bytes = self._system.cat_file(self._path(key), start=start, end=start + length)
            return found

    def remove(self, key: str) -> None:
        """Delete the file under a key, if there is one."""
        with _reporting_failure(key), suppress(FileNotFoundError):
            self._system.rm_file(self._path(key))

    def sweep(self, folder: str, keep: Iterable[str] = ()) -> None:
        """Delete the files under ``folder/``, except those whose keys are in ``keep``."""
        kept = {self._path(key) for key in keep}
        with _reporting_failure(folder), suppress(FileNotFoundError):
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
            sync_folder(Path(path).parent)


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
def _reporting_failure(what: str) -> Iterator[None]:
    """Turn errors of the store into Unavailable. The log gets the details; callers do not see paths."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        LOG.warning("the store of files cannot be used (%s): %s", what, error)
        message = "the store of files cannot be used; the server's log says why"
        raise Unavailable(message, code="store_unavailable", retry_after=5) from error
