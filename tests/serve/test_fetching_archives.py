"""Archives that nobody vouches for are unpacked below one folder, or refused."""

import io
import tarfile
from pathlib import Path

import pytest

from tureen_serve.fetching.archives import unpack_archive
from tureen_serve.fetching.entries import FetchError


def pack(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    """Write a tar archive of files, or of members as they are told."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                file.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.mode = 0o6777
                file.addfile(info, io.BytesIO(content))
    return path


def make_member(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz"])
def test_the_folder_that_holds_all_is_left_out(tmp_path: Path, name: str) -> None:
    for number, prefix in enumerate(("", "./", "model/", "./model/")):
        out = tmp_path / str(number)
        out.mkdir()
        archive = pack(tmp_path / name, (f"{prefix}config.json", b"{}"), (f"{prefix}part/x.json", b"1"))
        unpack_archive(archive, out)
        assert read(out) == {"config.json": b"{}", "part/x.json": b"1"}
        assert (out / "config.json").stat().st_mode & 0o7111 == 0


def test_what_could_leave_the_folder_is_refused(tmp_path: Path) -> None:
    for name, content, reason in (
        ("../config.json", b"x", "leads out"),
        ("model/../../config.json", b"x", "leads out"),
        ("/etc/config.json", b"x", "leads out"),
        ("a\\b", b"x", "leads out"),
        ("link", make_member(tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        ("hard", make_member(tarfile.LNKTYPE, "config.json"), "no plain file"),
        ("fifo", make_member(tarfile.FIFOTYPE), "no plain file"),
        ("device", make_member(tarfile.CHRTYPE), "no plain file"),
        ("../folder", make_member(tarfile.DIRTYPE), "no plain file"),
        ("config.json", b"x", "twice"),
    ):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        archive = pack(tmp_path / "model.tar", ("config.json", b"{}"), (name, content))
        with pytest.raises(FetchError, match=reason):
            unpack_archive(archive, out)
        assert read(out) == {}


def test_damaged_and_empty_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "model.tar.gz", ("config.json", b"{}" * 10_000), ("y.json", bytes(range(256)) * 100))
    (tmp_path / "cut.tar.gz").write_bytes(archive.read_bytes()[:300])
    (tmp_path / "text.tar").write_text("no archive")
    for name, reason in (("cut.tar.gz", "cannot be unpacked"), ("text.tar", "cannot be unpacked")):
        (tmp_path / name[:3]).mkdir()
        with pytest.raises(FetchError, match=reason):
            unpack_archive(tmp_path / name, tmp_path / name[:3])
    with pytest.raises(FetchError, match="holds no files"):
        unpack_archive(pack(tmp_path / "empty.tar"), tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(FetchError, match="unpacks to 45600 bytes, more than are free"):
        unpack_archive(archive, tmp_path)
