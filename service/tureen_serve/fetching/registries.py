"""Sources in OCI registries: artifacts whose layers are the files of a model, or one layer with a tar archive of them.

``oras push HOST/NAME:TAG *`` in the folder of a model makes the former; ``oras push HOST/NAME:TAG FOLDER``, and a
container image with one layer, are the latter. All that comes is verified by the digests of the manifest.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tureen_core.manifest_file import LARGEST
from tureen_serve.fetching.digests import PREFIX, digest_bytes
from tureen_serve.fetching.entries import FetchEntry, FetchError, is_safe_name
from tureen_serve.fetching.http_files import LOOPBACK, HttpFiles
from tureen_serve.fetching.registry_auth import ADVICE, DOCKER_HUB, RegistryAuth, find_login
from tureen_serve.fetching.remote_files import RemoteFile

REFERENCE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/(?P<name>[a-z0-9._-]+(?:/[a-z0-9._-]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
INDEXES = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
LARGEST_COUNT = 10_000


class RegistryFolder:
    """An artifact or an image in a registry.

    Raises:
        FetchError: the source is no reference, or the file with the login cannot be read.
    """

    def __init__(self, entry: FetchEntry) -> None:
        found = REFERENCE.fullmatch(entry.source)
        if found is None:
            raise FetchError(f"{entry.shown} is no reference: write oci://HOST/NAME:TAG, or oci://HOST/NAME@sha256:...")
        host = DOCKER_HUB if found["host"] in ("docker.io", "index.docker.io") else found["host"]
        scheme = "http" if host.partition(":")[0] in LOOPBACK else "https"
        self._url = f"{scheme}://{host}/v2/{found['name']}"
        self._wanted, self._digest = found["digest"] or found["tag"] or "latest", found["digest"]
        self._shown = entry.shown
        self._files = HttpFiles(
            entry.shown, f"check the reference; {ADVICE}", RegistryAuth(find_login(entry, host), entry.shown)
        )
        self._blobs: dict[str, str] = {}

    def close(self) -> None:
        """Close the connections."""
        self._files.close()

    def list_files(self) -> dict[str, RemoteFile]:
        """List the layers by their titles, or the one archive. See :class:`RemoteFolder`."""
        layers = self._read_manifest()
        packed = len(layers) == 1 and _is_archive(layers[0])
        named = {"model.tar": layers[0]} if packed else self._name_layers(layers)
        found = {name: self._describe(name, layer) for name, layer in named.items()}
        self._blobs = {name: file.state for name, file in found.items()}
        return found

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from a position. See :class:`RemoteFolder`."""
        return self._files.read(f"{self._url}/blobs/{self._blobs[name]}", {}, start)

    def _read_manifest(self) -> list[Mapping[str, Any]]:
        content = b""
        for part in self._files.read(f"{self._url}/manifests/{self._wanted}", {"accept": f"{MANIFESTS}, {INDEXES}"}, 0):
            content += part
            if len(content) > LARGEST:
                raise FetchError(f"{self._shown}: the manifest has more than {LARGEST} bytes")
        if self._digest not in (None, f"{PREFIX}{digest_bytes(content)}"):
            raise FetchError(f"{self._shown}: the registry sent another manifest than the one with this digest")
        try:
            manifest = json.loads(content)
            if "manifests" in manifest:
                raise FetchError(f"{self._shown} is an index of several images: name one by its digest")
            layers = manifest["layers"]
            if not layers or len(layers) > LARGEST_COUNT or not all(isinstance(each, dict) for each in layers):
                raise ValueError("it has no layers, or too many")
        except FetchError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FetchError(f"{self._shown}: the registry sent no manifest of an image: {error}") from error
        return list(layers)

    def _name_layers(self, layers: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for layer in layers:
            notes = layer.get("annotations") or {}
            name = notes.get(TITLE) if isinstance(notes, dict) else None
            if not isinstance(name, str) or _is_archive(layer):
                raise FetchError(
                    f"{self._shown} has {len(layers)} layers, and not each is one named file: push the files of one "
                    "model (`oras push REFERENCE *` in its folder), or an image with a single layer"
                )
            if not is_safe_name(name):
                raise FetchError(f"{self._shown} holds {name[:200]!r}, which leads out of its folder")
            if name in found:
                raise FetchError(f"{self._shown} holds {name[:200]!r} twice")
            found[name] = layer
        return found

    def _describe(self, name: str, layer: Mapping[str, Any]) -> RemoteFile:
        digest, size = layer.get("digest"), layer.get("size")
        if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or not isinstance(size, int):
            raise FetchError(f"{self._shown}: {name} has no SHA-256 and size in the manifest; push it again")
        return RemoteFile(size, digest, digest.removeprefix(PREFIX), _is_archive(layer))


def _is_archive(layer: Mapping[str, Any]) -> bool:
    notes = layer.get("annotations") or {}
    packed = isinstance(notes, dict) and notes.get(UNPACK) == "true"
    return packed or re.search(r"[.+]tar\b", str(layer.get("mediaType"))) is not None
