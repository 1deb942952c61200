"""A real registry of OCI artifacts on a free port of loopback, and what pushes to it as ``oras push`` does."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from waiting import block_until

LOGIN = "cook:spoon"
HASHED = "cook:$2b$05$GAEdWAOWio77L8xc5BLUN.PDU6lO6zQ5AOBvcZxkFL1/OVSOvH9ce"  # bcrypt of it
TITLE = "org.opencontainers.image.title"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PACKED = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def find_registry() -> str:
    """The path of docker-registry. Where it is not installed the test is skipped from here, but not in CI."""
    found = shutil.which("docker-registry")
    if found is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("docker-registry is not installed: `make registry`")
    return str(found)


class Registry:
    """A registry.

    Attributes:
        host: where it listens, as references name it.
    """

    def __init__(self, port: int, login: str | None) -> None:
        self.host = f"127.0.0.1:{port}"
        user, _, password = (login or "").partition(":")
        self._client = httpx2.Client(base_url=f"http://{self.host}", auth=(user, password) if login else None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            return self._client.get("/v2/").status_code in (200, 401)
        except httpx2.TransportError:
            return False

    def push_blob(self, name: str, content: bytes) -> dict[str, Any]:
        """Push a blob, and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        begun = self._client.post(f"/v2/{name}/blobs/uploads/")
        put = self._client.put(
            httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": digest}), content=content
        )
        assert put.status_code == 201, put.text
        return {"digest": digest, "size": len(content)}

    def push(self, name: str, tag: str, layers: list[dict[str, Any]], **more: Any) -> str:
        """Push a manifest, and return its digest."""
        config = {"mediaType": "application/vnd.oci.empty.v1+json", **self.push_blob(name, b"{}")}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}
        content = json.dumps(manifest).encode()
        put = self._client.put(f"/v2/{name}/manifests/{tag}", content=content, headers={"content-type": MANIFEST})
        assert put.status_code == 201, put.text
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def push_files(self, name: str, tag: str, files: Mapping[str, bytes]) -> str:
        """Push files as layers with titles, as ``oras push REFERENCE FILES`` does."""
        layers = [
            {"mediaType": LAYER.removesuffix(".tar"), **self.push_blob(name, content), "annotations": {TITLE: title}}
            for title, content in files.items()
        ]
        return self.push(name, tag, layers)

    def push_folder(self, name: str, tag: str, folder: Path) -> str:
        """Push a folder as one packed layer, as of a container image that copies it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, arcname="models/one")
        return self.push(name, tag, [{"mediaType": PACKED, **self.push_blob(name, packed.getvalue())}])


@contextmanager
def serve_registry(folder: Path, login: str | None = None) -> Iterator[Registry]:
    """A registry that keeps its blobs in a folder, and if it has a login asks for it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    folder.mkdir(parents=True)
    if login is not None:
        (folder / "htpasswd").write_text(HASHED + "\n")
        told["auth"] = {"htpasswd": {"realm": "kitchen", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(yaml.safe_dump(told))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_registry(), "serve", folder / "config.yml"], stdout=log, stderr=log)
    registry = Registry(port, login)
    try:
        block_until(registry.answers, 30)
        yield registry
    finally:
        registry.close()
        process.terminate()
        process.wait(30)
