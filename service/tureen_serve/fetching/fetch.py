"""Fetch one model: find out what its source holds, download it, verify it, and put it in its folder."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tureen_core.manifest_file import LARGEST, MANIFEST, README, digest_file
from tureen_core.own_files import find_foreign_file, list_missing_shards
from tureen_core.plain.hub import FILES, OTHER_FORMATS
from tureen_serve.fetching.archives import unpack_archive
from tureen_serve.fetching.digests import PREFIX, digest_listing, read_file_digests
from tureen_serve.fetching.download import TRIES, Downloader, Progress, retry_call
from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.fetched_folder import FetchedFolder, Record
from tureen_serve.fetching.registries import RegistryFolder
from tureen_serve.fetching.remote_files import RemoteFile, RemoteFolder
from tureen_serve.fetching.stores import open_store
from tureen_serve.fetching.web import WebFolder

MODEL_FILES = (MANIFEST, "config.json", "adapter_config.json")  # one of them is in the folder of each model


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes:
        folder: where the model is now.
        digest: its digest, see :mod:`tureen_serve.fetching.digests`.
        files: how many files it has.
        size: their bytes.
        downloaded: whether anything was downloaded; otherwise the folder held it already.
    """

    folder: Path
    digest: str
    files: int
    size: int
    downloaded: bool


def fetch_model(
    entry: FetchEntry, progress: Progress = lambda _: None, wait: Callable[[float], object] = time.sleep
) -> Fetched:
    """Fetch a model, unless its folder holds it already. An interrupted fetch is continued.

    With a digest a folder that holds it is not compared with the source, so no network is needed.

    Args:
        progress: is told of bytes that came, from several threads.
        wait: sleeps between tries.

    Raises:
        FetchError: it cannot be fetched, or is not what was wanted. The folder is as it was before.
    """
    folder = FetchedFolder(entry.to)
    with folder.locked():
        record = folder.read_record()
        whole = record if record is not None and folder.target.is_dir() and folder.is_intact(record) else None
        if whole is not None and whole.digest == entry.digest:
            return _describe(folder, whole, downloaded=False)
        folder.check_replaceable()
        with closing(_open_source(entry)) as source:
            return _Fetch(entry, source, folder, progress, wait).run(whole)


def _open_source(entry: FetchEntry) -> RemoteFolder:
    if entry.is_registry:
        return RegistryFolder(entry)
    return WebFolder(entry) if entry.is_web else open_store(entry)


class _Fetch:
    def __init__(
        self,
        entry: FetchEntry,
        source: RemoteFolder,
        folder: FetchedFolder,
        progress: Progress,
        wait: Callable[[float], object],
    ) -> None:
        self._entry = entry
        self._folder = folder
        self._wait = wait
        self._shown = entry.shown
        self._source = source
        self._download = Downloader(source, folder.scratch, self._shown, progress, wait)

    def run(self, whole: Record | None) -> Fetched:
        """Fetch the source; ``whole`` is the record of a folder that may be it already."""
        listing = self._list_files()
        state = _digest_states(listing)
        same = whole is not None and (whole.source, whole.state) == (self._entry.known, state)
        if whole is not None and same and self._entry.digest is None:
            return _describe(self._folder, whole, downloaded=False)
        self._folder.resume(self._entry.known, {name: file.state for name, file in listing.items()})
        if len(listing) == 1 and (self._entry.is_archive or next(iter(listing.values())).archive):
            digest, made = self._fetch_archive(listing)
        else:
            digest, made = None, self._folder.scratch
            self._fetch_folder(listing)
        files = _digest_folder(made)
        self._check_folder(made, files)
        digest = digest or self._check_digest(digest_listing(files))
        if _digest_states(self._list_files()) != state:
            raise FetchError(f"{self._shown} changed while it was fetched; fetch it again")
        record = Record(self._entry.known, digest, state, files)
        self._folder.publish(made, record)
        return _describe(self._folder, record, downloaded=True)

    def _list_files(self) -> dict[str, RemoteFile]:
        asked_here = self._entry.is_web or self._entry.is_registry
        tries = TRIES if asked_here else 1  # the stores' libraries try again themselves
        return retry_call(self._source.list_files, self._shown, tries, self._wait)

    def _fetch_archive(self, listing: Mapping[str, RemoteFile]) -> tuple[str, Path]:
        ((name, found),) = self._download.fetch_all(listing).items()
        digest = self._check_digest(f"{PREFIX}{found}")
        made = self._folder.part / "unpacked"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        archive = self._folder.scratch / name
        unpack_archive(archive, made)
        archive.unlink()
        return digest, made

    def _fetch_folder(self, listing: Mapping[str, RemoteFile]) -> None:
        if not set(MODEL_FILES) & set(listing):
            raise FetchError(f"{self._shown} holds none of {', '.join(MODEL_FILES)}: name the folder of one model")
        if MANIFEST in listing:
            wanted = self._read_manifest(listing)
        else:
            wanted = {name: file for name, file in listing.items() if _is_wanted(name)}
        self._download.fetch_all(wanted)
        for path in sorted(self._folder.scratch.rglob("*")):  # what an earlier try left
            if path.is_file() and path.relative_to(self._folder.scratch).as_posix() not in wanted:
                path.unlink()

    def _read_manifest(self, listing: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
        """Download the manifest, and list it and the files that it names, with their digests."""
        size = listing[MANIFEST].size
        if size is not None and size > LARGEST:
            raise FetchError(f"{self._shown}: {MANIFEST} has {size} bytes, and a manifest has at most {LARGEST}")
        self._check_digest(f"{PREFIX}{self._download.fetch_one(MANIFEST, listing[MANIFEST])}")
        content = (self._folder.scratch / MANIFEST).read_bytes()
        wanted = {name: listing[name] for name in (MANIFEST, README) if name in listing}
        for name, digest in read_file_digests(content, self._shown).items():
            if name not in listing:
                raise FetchError(f"{self._shown}: {name} is in the manifest and not in the source; copy it there again")
            wanted[name] = RemoteFile(listing[name].size, listing[name].state, digest)
        return wanted

    def _check_folder(self, made: Path, files: Mapping[str, str]) -> None:
        """Check what was downloaded or unpacked, before anybody can use it."""
        if not set(MODEL_FILES) & set(files):
            raise FetchError(f"{self._shown} holds none of {', '.join(MODEL_FILES)}: pack the folder of one model")
        if MANIFEST in files:
            wanted = read_file_digests((made / MANIFEST).read_bytes(), self._shown)
            for name in sorted((set(wanted) | set(files)) - {MANIFEST, README}):
                if wanted.get(name) != files.get(name):
                    raise FetchError(f"{self._shown}: {name} differs from what its manifest says; export it again")
        elif unwanted := sorted(name for name in files if not _is_wanted(name)):
            raise FetchError(f"{self._shown} holds {unwanted[0]!r}: pack only {', '.join(FILES)}")
        if foreign := find_foreign_file(made):
            raise FetchError(f"{self._shown}: {foreign}")
        if missing := list_missing_shards(made):
            raise FetchError(f"{self._shown}: {missing[0]} is missing, so the model is not whole")
        if not any(name.endswith(".safetensors") for name in files):
            raise FetchError(f"{self._shown} holds no *.safetensors: save the model so, or convert it")

    def _check_digest(self, found: str) -> str:
        if self._entry.digest not in (None, found):
            raise FetchError(f"{self._shown} has the digest {found}, and {self._entry.digest} is wanted")
        return found


def _is_wanted(name: str) -> bool:
    return any(fnmatch(name, each) for each in FILES) and not any(fnmatch(name, each) for each in OTHER_FORMATS)


def _digest_states(listing: Mapping[str, RemoteFile]) -> str:
    states = [[name, file.size, file.state] for name, file in sorted(listing.items())]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _digest_folder(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def _describe(folder: FetchedFolder, record: Record, downloaded: bool) -> Fetched:
    size = sum((folder.target / name).stat().st_size for name in record.files)
    return Fetched(folder.target, record.digest, len(record.files), size, downloaded)
