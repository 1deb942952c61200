"""Sources that fsspec reads: object stores, the hub, and folders of this machine."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tureen_core.plain.hub import allow_hub_requests
from tureen_core.plain.source_text import HUB, HubName, parse_hub_name
from tureen_core.plain.url_copies import STATES
from tureen_serve.fetching.entries import FetchEntry, FetchError, explain_error, is_safe_name
from tureen_serve.fetching.remote_files import RemoteFile

PART_BYTES = 16 * 2**20
LARGEST_COUNT = 10_000
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
HUB_STATE = "blob_id"


class StoreFolder:
    """A folder in a store, or with ``single`` the one file that ``root`` names."""

    def __init__(self, system: Any, root: str, shown: str, single: bool = False) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._shown = shown
        self._single = single

    def close(self) -> None:
        """Do nothing: fsspec keeps the connections of a store."""

    def list_files(self) -> dict[str, RemoteFile]:
        """List the files by their relative names. See :class:`RemoteFolder`."""
        with _as_os_errors(self._shown):
            return self._list()

    def _list(self) -> dict[str, RemoteFile]:
        self._system.invalidate_cache()
        if self._single:
            facts = self._system.info(self._root)
            if facts.get("type") != "file":
                raise FetchError(f"{self._shown} is no file")
            return {Path(self._root).name: self._describe(Path(self._root).name, facts)}
        found = {}
        for path, facts in sorted(self._system.find(self._root, detail=True).items()):
            name = path.removeprefix(f"{self._root}/")
            if name in ("", path) and facts["size"] == 0:
                continue  # a mark for the folder
            if name == path:
                raise FetchError(f"{self._shown} is a file: name the folder of the model, or a tar archive")
            if not is_safe_name(name):
                raise FetchError(f"{self._shown} holds {name[:200]!r}, which leads out of its folder")
            found[name] = self._describe(name, facts)
        if not found:
            raise FetchError(f"{self._shown} holds no files, or is not there")
        if len(found) > LARGEST_COUNT:
            raise FetchError(f"{self._shown} holds {len(found)} files, more than {LARGEST_COUNT}: name one model")
        return found

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from a position. See :class:`RemoteFolder`."""
        path = self._root if self._single else f"{self._root}/{name}"
        with _as_os_errors(self._shown), self._system.open(path, "rb", block_size=PART_BYTES) as file:
            file.seek(start)
            while part := file.read(PART_BYTES):
                yield part

    def _describe(self, name: str, facts: Mapping[str, Any]) -> RemoteFile:
        self._check_kind(name, facts)
        told = [str(facts[each]) for each in (HUB_STATE, *STATES) if facts.get(each) is not None]
        if not told:
            raise FetchError(f"{self._shown}/{name}: this store tells no time of its files; fetch an archive by https")
        large = facts.get("lfs")
        digest = large.get("sha256") if isinstance(large, Mapping) else getattr(large, "sha256", None)
        return RemoteFile(int(facts["size"]), told[0], digest)

    def _check_kind(self, name: str, facts: Mapping[str, Any]) -> None:
        """Refuse links, except from a snapshot in the hub's cache to the blobs beside it; and devices."""
        if "mode" not in facts:  # of files of this machine only
            return
        folder, path = Path(self._root), Path(facts["name"])
        if facts.get("islink"):
            blobs = folder.parent.parent / "blobs"
            if folder.parent.name != "snapshots" or path.resolve().parent != blobs.resolve():
                raise FetchError(f"{self._shown}: {name} is a link; copy the file it points to")
        if not stat.S_ISREG(path.stat().st_mode):
            raise FetchError(f"{self._shown}: {name} is no file")


def open_store(entry: FetchEntry) -> StoreFolder:
    """Open a source that fsspec reads. Credentials of object stores are found as the tools of each store do.

    Raises:
        FetchError: the kind of store is unknown, its package is missing, or a token is given that it cannot use.
    """
    hub = parse_hub_name(entry.source)
    if hub is not None:
        return _open_hub(entry, hub)
    if entry.token_file is not None:
        raise FetchError(
            f"token_file is for the hub and for web servers: {entry.shown} takes credentials from the environment"
        )
    if not entry.is_url or entry.source.startswith("file://"):
        path = unquote(urlsplit(entry.source).path) if entry.is_url else entry.source
        folder = Path(path).expanduser().absolute()
        if not folder.exists():
            raise FetchError(f"there is no {folder}: name a folder, a model of the hub as org/name, or a URL")
        system, root = _open(str(folder), entry)
        return StoreFolder(system, root, entry.shown, entry.is_archive and not folder.is_dir())
    system, root = _open(entry.source, entry)
    return StoreFolder(system, root, entry.shown, entry.is_archive)


def _open_hub(entry: FetchEntry, name: HubName) -> StoreFolder:
    """Open the commit that a branch or tag stands for now."""
    if not allow_hub_requests():
        raise FetchError(f"{entry.shown}: HF_HUB_OFFLINE forbids to download it; unset it for this command")
    token = entry.read_token()
    from huggingface_hub import HfApi  # reads at its import whether it may use the network

    try:
        commit = HfApi(token=token).model_info(name.repository, revision=name.revision).sha
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        raise FetchError(f"{entry.shown} cannot be read: {explain_error(error)}") from error
    system, root = _open(f"{HUB}{name.repository}@{commit}", entry, token=token)
    return StoreFolder(system, root, entry.shown)


def _open(url: str, entry: FetchEntry, **options: Any) -> tuple[Any, str]:
    import fsspec  # the stores' libraries are slow to import

    protocol = url.partition("://")[0]
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        known = EXTRAS.get(protocol)
        advice = f"pip install 'tureen[{known}]'" if known else str(error)
        raise FetchError(f"{entry.shown}: {protocol}:// needs a package that is not installed: {advice}") from error
    except (OSError, ValueError) as error:
        raise FetchError(f"{entry.shown} cannot be read: {error}") from error
    return found


@contextmanager
def _as_os_errors(shown: str) -> Iterator[None]:
    """Turn the errors of the stores' libraries, each of its own kind, into those of :class:`RemoteFolder`."""
    try:
        yield
    except (OSError, FetchError):
        raise
    except Exception as error:
        kind = type(error).__name__
        if "Credential" in kind or "Auth" in kind:
            raise FetchError(f"{shown} cannot be read: {error}") from error
        raise OSError(f"{kind}: {error}") from error
