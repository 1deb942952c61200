"""Unpack tar archives that nobody vouches for: only plain files and folders, only below one folder."""

import posixpath
import shutil
import tarfile
from pathlib import Path

from tureen_serve.fetching.entries import FetchError, is_safe_name

LARGEST_COUNT = 10_000


def unpack_archive(archive: Path, out: Path) -> None:
    """Unpack a tar archive, compressed or not, into ``out``. The folders that hold all are left out.

    Owners, modes and times are not kept.

    Raises:
        FetchError: it is no tar archive, holds links, devices or names that lead elsewhere, names a file twice, or does
            not fit on the disk.
    """
    try:
        with tarfile.open(archive) as file:
            members = _list_files(file, archive.name)
            prefix = _find_common_folder(list(members))
            size = sum(member.size for member in members.values())
            if size > shutil.disk_usage(out).free:
                raise FetchError(f"{archive.name} unpacks to {size} bytes, more than are free at {out}")
            for name, member in members.items():
                path = out / name.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                content = file.extractfile(member)
                if content is None:
                    raise FetchError(f"{archive.name}: {name} is no file")
                with path.open("xb") as target:
                    shutil.copyfileobj(content, target, 2**20)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(f"{archive.name} cannot be unpacked: {error}") from error


def _list_files(file: tarfile.TarFile, shown: str) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for member in file:
        name = member.name.removeprefix("./")
        if member.isdir() and (name in ("", ".") or is_safe_name(name.rstrip("/"))):
            continue
        if not member.isreg():
            raise FetchError(f"{shown} holds {name[:200]!r}, which is no plain file; pack the files themselves")
        if not is_safe_name(name):
            raise FetchError(f"{shown} holds {name[:200]!r}, which leads out of its folder")
        if name in found:
            raise FetchError(f"{shown} holds {name[:200]!r} twice")
        found[name] = member
        if len(found) > LARGEST_COUNT:
            raise FetchError(f"{shown} holds more than {LARGEST_COUNT} files: pack one model")
    if not found:
        raise FetchError(f"{shown} holds no files")
    return found


def _find_common_folder(names: list[str]) -> str:
    common = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return f"{common}/" if common else ""
