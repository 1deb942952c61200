"""Models come from a real registry: file by file or packed, with a login, continued, and never what was not pushed."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serve.registries import LOGIN, PACKED, Registry, serve_registry
from serve.test_fetching_fetch import digest_file, fetch, read_folder

from tureen_core.artifact import open_artifact
from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.registries import RegistryFolder
from tureen_serve.settings import STARTER

ARTIFACT = STARTER / "rewards" / "academy"
FILES = {path.name: path.read_bytes() for path in ARTIFACT.iterdir()}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("registry") / "open") as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a name and a password, with the artifact."""
    with serve_registry(tmp_path_factory.mktemp("registry") / "guarded", LOGIN) as found:
        found.push_files("models/academy", "v1", FILES)
        yield found


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the one where ``docker login`` leaves what it was told."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


def test_files_come_and_are_not_fetched_twice(registry: Registry, tmp_path: Path) -> None:
    registry.push_files("models/academy", "v1", FILES)
    source = f"oci://{registry.host}/models/academy:v1"
    done = fetch(source, tmp_path / "academy")
    assert done.downloaded
    assert read_folder(done.folder) == FILES
    assert done.digest == digest_file(ARTIFACT / "tureen.json")
    assert open_artifact(done.folder).name == "academy"
    assert not fetch(source, done.folder).downloaded
    assert not fetch("oci://127.0.0.1:9/models/academy:v1", done.folder, done.digest).downloaded  # nothing is asked


def test_a_tag_that_moved_is_fetched_again_and_a_digest_holds(registry: Registry, tmp_path: Path) -> None:
    first = registry.push_files("models/moving", "latest", FILES)
    source = f"oci://{registry.host}/models/moving"
    fetch(source, tmp_path / "moving")
    registry.push_files("models/moving", "latest", FILES | {"README.md": b"Another text."})
    assert fetch(source, tmp_path / "moving").downloaded
    assert (tmp_path / "moving/README.md").read_bytes() == b"Another text."
    pinned = fetch(f"{source}@{first}", tmp_path / "pinned")
    assert read_folder(pinned.folder) == FILES
    with pytest.raises(FetchError, match=r"the server answers 404 .*; check the reference"):
        fetch(f"{source}@sha256:{'0' * 64}", tmp_path / "other")


def test_an_image_with_one_layer_is_unpacked(registry: Registry, tmp_path: Path) -> None:
    registry.push_folder("images/academy", "v1", ARTIFACT)
    source = f"oci://{registry.host}/images/academy:v1"
    done = fetch(source, tmp_path / "academy")
    assert read_folder(done.folder) == FILES
    assert not fetch(source, done.folder).downloaded
    assert not fetch(source, done.folder, done.digest).downloaded


def test_an_interrupted_file_is_continued(registry: Registry) -> None:
    registry.push_files("models/academy", "v1", FILES)
    source = RegistryFolder(FetchEntry(source=f"oci://{registry.host}/models/academy:v1", to=Path("/models")))
    (name,) = (each for each in source.list_files() if each.endswith(".safetensors"))
    assert b"".join(source.read(name, 1000)) == FILES[name][1000:]
    assert b"".join(source.read(name, len(FILES[name]))) == b""
    source.close()


def test_a_login_is_asked_for_and_found(guarded: Registry, tmp_path: Path, no_login: Path) -> None:
    source = f"oci://{guarded.host}/models/academy:v1"
    with pytest.raises(FetchError, match=r"answers 401 .* run `docker login`, or give token_file with user:password"):
        fetch(source, tmp_path / "academy")
    (tmp_path / "login").write_text(f"{LOGIN}\n")
    assert fetch(source, tmp_path / "academy", token_file=tmp_path / "login").downloaded
    (tmp_path / "login").write_text("cook:ladle\n")
    with pytest.raises(FetchError, match="answers 401"):
        fetch(source, tmp_path / "other", token_file=tmp_path / "login")
    (tmp_path / "login").write_text("spoon\n")
    with pytest.raises(FetchError, match=r"token_file: .*login must hold user:password"):
        fetch(source, tmp_path / "other", token_file=tmp_path / "login")
    kept = {"auths": {guarded.host: {"auth": base64.b64encode(LOGIN.encode()).decode()}}}
    (no_login / "config.json").write_text(json.dumps(kept))
    assert fetch(source, tmp_path / "other").downloaded
    (no_login / "config.json").write_text("[]")
    with pytest.raises(FetchError, match=r"config\.json cannot be read as a file of `docker login`"):
        fetch(source, tmp_path / "third")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("oci://host", "is no reference: write oci://HOST/NAME:TAG"),
        ("oci://host/Model:v1", "is no reference"),
        ("oci://host/model:v1@sha256:12", "is no reference"),
    ],
)
def test_what_is_no_reference_is_refused(source: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=sentence):
        fetch(source, tmp_path / "model")


def test_layers_that_are_no_model_are_refused(registry: Registry, tmp_path: Path) -> None:
    def refuse(sentence: str) -> None:
        with pytest.raises(FetchError, match=sentence):
            fetch(f"oci://{registry.host}/bad/one:v1", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()

    blob = registry.push_blob("bad/one", b"content")
    registry.push("bad/one", "v1", [{"mediaType": "application/octet-stream", **blob}])
    refuse("has 1 layers, and not each is one named file")
    registry.push("bad/one", "v1", 2 * [{"mediaType": PACKED, **blob}])
    refuse("has 2 layers, and not each is one named file")
    registry.push_files("bad/one", "v1", {"../up": b"a", "config.json": b"{}"})
    refuse(r"holds '\.\./up', which leads out of its folder")
    registry.push_files("bad/one", "v1", {"notes": b"a"})
    refuse(r"holds none of tureen\.json, config\.json")
    registry.push("bad/one", "v1", [{"mediaType": PACKED, **blob}])
    refuse("cannot be unpacked")
    registry.push_files("bad/one", "v1", FILES | {"adapter_model.safetensors": b"other"})
    refuse(r"adapter_model\.safetensors has the SHA-256|differs")


@contextmanager
def token_registry(answers: dict[str, Any]) -> Iterator[str]:
    """A registry whose tokens another address gives, to nobody or to the login; it says where it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("authorization")
            answers["asked"].append((self.path.partition("?")[0], given))
            if self.path.startswith("/token?"):
                assert "service=kitchen" in self.path
                assert "scope=repository%3Amodels%2Fa%3Apull" in self.path
                self._reply(200, json.dumps(answers["token"]).encode())
            elif given != "Bearer fresh":
                realm = answers.get("realm") or f"http://{self.headers['host']}/token"
                told = f'Bearer realm="{realm}",service="kitchen",scope="repository:models/a:pull"'
                self._reply(401, b"", told)
            else:
                self._reply(200, b'{"layers": []}')

        def _reply(self, status: int, content: bytes, told: str | None = None) -> None:
            self.send_response(status)
            if told is not None:
                self.send_header("www-authenticate", told)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("login", [None, LOGIN])
def test_a_token_is_asked_for_where_the_registry_says(login: str | None, tmp_path: Path) -> None:
    answers: dict[str, Any] = {"asked": [], "token": {"access_token": "fresh"}}
    (tmp_path / "login").write_text(LOGIN)
    with token_registry(answers) as host, pytest.raises(FetchError, match="sent no manifest"):
        fetch(f"oci://{host}/models/a:v1", tmp_path / "a", token_file=tmp_path / "login" if login else None)
    sent = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
    path = "/v2/models/a/manifests/v1"
    assert answers["asked"] == [(path, None), ("/token", sent), (path, "Bearer fresh")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"token": {}}, "the registry gives no token without a login"),
        ({"token": []}, "the registry gives no token without a login"),
        ({"token": {"token": "stale"}}, "the server answers 401"),
        ({"realm": "http://elsewhere.example/token"}, "'http://elsewhere.example/token', which is not https"),
    ],
)
def test_a_token_that_does_not_come_is_told(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    answers = {"asked": [], "token": {"token": "fresh"}} | changes
    with token_registry(answers) as host, pytest.raises(FetchError, match=sentence):
        fetch(f"oci://{host}/models/a:v1", tmp_path / "a")
