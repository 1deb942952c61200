"""A model is fetched as a whole or not at all, is verified, and is not fetched twice."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.hubs import fill_cache
from serve.web_folders import Behaviour, serve_folder

from tureen_core.artifact import open_artifact
from tureen_serve.fetching.digests import digest_listing
from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.fetch import Fetched, fetch_model
from tureen_serve.settings import STARTER

NAMES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "tureen.json"}


def digest_file(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(source: object, to: Path, digest: str | None = None, token_file: Path | None = None) -> Fetched:
    entry = FetchEntry(source=str(source), to=to, digest=digest, token_file=token_file)
    return fetch_model(entry, wait=lambda _: None)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A copy of a real artifact, to serve and to damage."""
    return Path(shutil.copytree(STARTER / "rewards" / "academy", tmp_path / "store" / "academy"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder as the hub has base models: in two shards, with files that are not wanted."""
    folder = tmp_path / "store" / "base"
    (folder / "onnx").mkdir(parents=True)
    names = ("model-1.safetensors", "model-2.safetensors", "pytorch_model.bin", "modeling.py", "onnx/model.safetensors")
    for name in names:
        (folder / name).write_bytes(name.encode() * 1000)
    (folder / "config.json").write_text("{}")
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def web(artifact: Path) -> Iterator[Behaviour]:
    """A web server for the folder that holds the artifact."""
    with serve_folder(artifact.parent) as told:
        yield told


def test_a_folder_of_this_machine_becomes_an_artifact_that_opens(artifact: Path, tmp_path: Path) -> None:
    done = fetch(artifact, tmp_path / "models" / "academy")
    assert done.downloaded
    assert (done.files, done.digest) == (4, digest_file(artifact / "tureen.json"))
    assert read_folder(done.folder) == read_folder(artifact)
    assert open_artifact(done.folder).name == "academy"
    assert not fetch(artifact, done.folder).downloaded


def test_a_changed_source_replaces_the_folder(base: Path, tmp_path: Path) -> None:
    first = fetch(base, tmp_path / "base")
    (base / "model-1.safetensors").write_bytes(b"new")
    second = fetch(base, tmp_path / "base")
    assert second.downloaded
    assert second.digest != first.digest
    assert (tmp_path / "base" / "model-1.safetensors").read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / ".tureen-fetch").iterdir()) == ["base.json", "base.lock"]


def test_a_base_comes_without_pickles_and_code(base: Path, tmp_path: Path) -> None:
    done = fetch(base, tmp_path / "base")
    found = read_folder(done.folder)
    assert sorted(found) == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    ]
    assert done.digest == digest_listing({name: hashlib.sha256(each).hexdigest() for name, each in found.items()})
    assert fetch("/nowhere", tmp_path / "base", done.digest).downloaded is False  # the source is not asked
    with pytest.raises(FetchError, match=r"has the digest sha256:.* is wanted"):
        fetch(base, tmp_path / "other", f"sha256:{'0' * 64}")
    assert not (tmp_path / "other").exists()


def test_a_damaged_folder_is_mended(artifact: Path, tmp_path: Path) -> None:
    done = fetch(artifact, tmp_path / "academy")
    for damage in (
        lambda: (done.folder / "adapter_model.safetensors").write_bytes(b"x"),
        lambda: (done.folder / "adapter_config.json").unlink(),
        lambda: (done.folder / "more.json").write_text("{}"),
        lambda: shutil.rmtree(done.folder),
    ):
        damage()
        assert fetch(artifact, done.folder, done.digest).downloaded
        assert read_folder(done.folder) == read_folder(artifact)


def test_an_artifact_of_a_web_server_is_the_one_whose_digest_is_named(web: Behaviour, tmp_path: Path) -> None:
    digest = digest_file(web.root / "academy" / "tureen.json")
    done = fetch(f"{web.url}/academy/", tmp_path / "academy", digest)
    assert set(read_folder(done.folder)) == NAMES - {"README.md"}
    asked = len(web.asked)
    assert not fetch(f"{web.url}/academy/", tmp_path / "academy", digest).downloaded
    assert len(web.asked) == asked
    with pytest.raises(FetchError, match="not the one that is wanted"):
        fetch(f"{web.url}/academy", tmp_path / "other", f"sha256:{'1' * 64}")
    with pytest.raises(FetchError, match=r"needs the digest of its tureen\.json"):
        fetch(f"{web.url}/academy", tmp_path / "other")
    (web.root / "academy" / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(FetchError, match=r"adapter_model\.safetensors has the SHA-256 .* is wanted"):
        fetch(f"{web.url}/academy", tmp_path / "other", digest)
    assert not (tmp_path / "other").exists()


def test_cut_replies_are_continued(web: Behaviour, tmp_path: Path) -> None:
    web.cuts, web.busy = 2, 1
    digest = digest_file(web.root / "academy" / "tureen.json")
    done = fetch(f"{web.url}/academy", tmp_path / "academy", digest)
    assert read_folder(done.folder).items() <= read_folder(web.root / "academy").items()
    assert [wanted for _, wanted in web.asked if wanted]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_fetch_is_continued_by_the_next(web: Behaviour, tmp_path: Path, ranges: bool) -> None:
    digest = digest_file(web.root / "academy" / "tureen.json")
    weights = web.root / "academy" / "adapter_model.safetensors"
    url, whole = f"{web.url}/academy", weights.read_bytes()
    weights.rename(weights.with_suffix(".hidden"))
    with pytest.raises(FetchError, match=r"404 for /academy/adapter_model\.safetensors"):
        fetch(url, tmp_path / "academy", digest)
    assert not (tmp_path / "academy").exists()
    weights.with_suffix(".hidden").rename(weights)
    part = tmp_path / ".tureen-fetch" / "academy.part" / "files"
    assert (part / "adapter_config.json").is_file()
    (part / weights.name).write_bytes(whole[:1000])
    web.ranges = ranges
    web.asked.clear()
    fetch(url, tmp_path / "academy", digest)
    assert dict(web.asked)[f"/academy/{weights.name}"] == "bytes=1000-"
    assert (tmp_path / "academy" / weights.name).read_bytes() == whole


def test_what_an_interrupted_fetch_left_damaged_comes_again(web: Behaviour, tmp_path: Path) -> None:
    digest = digest_file(web.root / "academy" / "tureen.json")
    url, whole = f"{web.url}/academy", read_folder(web.root / "academy")
    web.token = "x"
    with pytest.raises(FetchError, match="401"):
        fetch(url, tmp_path / "academy", digest)
    web.token = None
    (web.root / "academy" / "adapter_config.json").rename(web.root / "kept")
    with pytest.raises(FetchError, match="404"):
        fetch(url, tmp_path / "academy", digest)
    (web.root / "kept").rename(web.root / "academy" / "adapter_config.json")
    part = tmp_path / ".tureen-fetch" / "academy.part" / "files"
    (part / "adapter_model.safetensors").write_bytes(b"damaged")
    done = fetch(url, tmp_path / "academy", digest)
    assert read_folder(done.folder).items() <= whole.items()


def test_a_token_opens_a_web_server(web: Behaviour, tmp_path: Path) -> None:
    web.token = "secret"
    (tmp_path / "token").write_text("secret\n")
    digest = digest_file(web.root / "academy" / "tureen.json")
    assert fetch(f"{web.url}/academy", tmp_path / "academy", digest, tmp_path / "token").files == 3
    with pytest.raises(FetchError, match="only sent over https"):
        fetch("http://example.invalid/academy", tmp_path / "other", digest, tmp_path / "token")
    for content in ("", "two words", "two\nlines", "x" * 20_000):
        (tmp_path / "token").write_text(content)
        with pytest.raises(FetchError, match="one token in one line"):
            fetch(f"{web.url}/academy", tmp_path / "other", digest, tmp_path / "token")
    with pytest.raises(FetchError, match="takes credentials from the environment"):
        fetch(artifact, tmp_path / "other", None, tmp_path / "token")


def test_an_archive_is_fetched_and_unpacked(web: Behaviour, tmp_path: Path) -> None:
    archive = web.root / "academy.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(web.root / "academy", "academy")
    web.cuts = 1
    done = fetch(f"{web.url}/academy.tar.gz?secret=1", tmp_path / "academy", digest_file(archive))
    assert read_folder(done.folder) == read_folder(web.root / "academy")
    assert done.digest == digest_file(archive)
    assert not fetch(f"{web.url}/academy.tar.gz", tmp_path / "academy", done.digest).downloaded
    assert fetch(archive, tmp_path / "local").digest == done.digest
    assert not (tmp_path / ".tureen-fetch" / "academy.part").exists()
    assert "secret" not in (tmp_path / ".tureen-fetch" / "academy.json").read_text()


def test_a_folder_that_no_fetch_made_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "notes").write_text("kept")
    with pytest.raises(FetchError, match="no fetch made it"):
        fetch(artifact, target)
    assert read_folder(target) == {"notes": b"kept"}
    (target / "notes").unlink()
    assert fetch(artifact, target).downloaded  # an empty folder, as a volume has it
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(FetchError, match="a link or a file"):
            fetch(artifact, tmp_path / name)
    with pytest.raises(FetchError, match="is a mount"):
        fetch(artifact, Path("/proc"))


def test_what_is_no_model_is_refused(artifact: Path, base: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    (tmp_path / "store" / "empty").mkdir()

    def link() -> None:
        (base / "tokenizer.json").symlink_to(outside)

    def name_foreign() -> None:
        (base / "tokenizer.json").unlink()
        (base / "tokenizer_config.json").write_text(json.dumps({"vocab": "/etc/passwd"}))

    def lose_shard() -> None:
        (base / "tokenizer_config.json").unlink()
        (base / "model-2.safetensors").unlink()

    def edit(files: dict[str, str]) -> None:
        (artifact / "tureen.json").write_text(json.dumps({"files": files}))

    zeros = "0" * 64
    for change, source, reason in (
        (lambda: None, artifact.parent, "holds none of tureen.json, config.json"),
        (lambda: None, artifact.parent / "empty", "holds no files"),
        (lambda: None, artifact.parent / "nothing", "there is no"),
        (lambda: None, artifact / "tureen.json", "is a file"),
        (link, base, r"tokenizer\.json is a link"),
        (name_foreign, base, "names the file '/etc/passwd'"),
        (lose_shard, base, r"model-2\.safetensors is missing"),
        (lambda: edit({"../x.json": zeros}), artifact, "is no file of the artifact's folder"),
        (lambda: edit({"x.bin": zeros}), artifact, "pickled code"),
        (lambda: edit({"x.json": "10"}), artifact, "SHA-256 each"),
        (lambda: edit({}), artifact, "SHA-256 each"),
        (lambda: edit({"x.safetensors": zeros}), artifact, "in the manifest and not in the source"),
        (lambda: (artifact / "tureen.json").write_bytes(b"[]"), artifact, "is no manifest"),
    ):
        change()
        with pytest.raises(FetchError, match=reason):
            fetch(source, tmp_path / "models" / "model")
        assert not (tmp_path / "models" / "model").exists()


def test_a_source_that_changes_meanwhile_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = FetchEntry(source=str(base), to=tmp_path / "base")
    moment = base.stat().st_mtime + 100

    def change(_: int) -> None:
        os.utime(base / "config.json", (moment, moment))

    with pytest.raises(FetchError, match="changed while it was fetched"):
        fetch_model(entry, change)
    assert not (tmp_path / "base").exists()


def test_a_snapshot_in_the_hubs_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    snapshot = fill_cache(tmp_path / "cache")
    assert read_folder(fetch(snapshot, tmp_path / "model").folder) == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }


def test_errors_do_not_tell_secrets(tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    for source in ("https://me:secret@127.0.0.1:9/x", "https://127.0.0.1:9/x?sig=secret", "nosuch://me:secret@host/x"):
        with pytest.raises(FetchError) as error:
            fetch(source, tmp_path / "x", digest)
        assert "secret" not in str(error.value)
