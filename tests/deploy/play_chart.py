"""Run the chart's pod by podman, without Kubernetes: the init container fetches a model, the server scores.

    python tests/deploy/play_chart.py IMAGE [VALUES.yaml]

The image is one of docker/Dockerfile. A web server of this script has the model, a reward of the starter as
a tar archive. The pod is what helm renders, less what ``podman kube play`` 4.3 does not know (:func:`adapt`). Exit
code 0: the first pod fetched and scored, the second found the model in its place.
"""

import base64
import hashlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.fetch_helm import fetch
from deploy.helm import Helm, Manifest

from tureen import Client
from tureen_serve.settings import STARTER

KEY = "c07e19b4d52af8630d9e1b7a"
READY_SECONDS = 900.0
PLAYED = ("ConfigMap", "Secret", "PersistentVolumeClaim", "Deployment")
ARCHIVE = "helpful.tar.gz"


def pack_model(folder: Path) -> str:
    """Pack a reward of the starter, and return the archive's digest."""
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        archive.add(STARTER / "rewards" / "helpful", arcname="helpful")
    return f"sha256:{hashlib.sha256((folder / ARCHIVE).read_bytes()).hexdigest()}"


@contextmanager
def serve_folder(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """A web server for a folder, on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def make_values(image: str, port: int, digest: str) -> dict[str, Any]:
    """The values of a release that serves one fetched reward from the packaged base."""
    repository, _, tag = image.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "starter": False,
        "server": {
            "rewards": [{"path": "/var/lib/tureen/rewards/helpful"}],
            "limits": {"drain_seconds": 1},
            "batches": {"enabled": False},
        },
        "probes": {"readiness": {"periodSeconds": 1, "failureThreshold": 1}},
        "keys": {"values": [KEY]},
        "artifacts": {
            "sources": [
                {"source": f"http://127.0.0.1:{port}/{ARCHIVE}", "to": "rewards/helpful", "digest": digest},
            ],
            "persistent": True,
        },
    }


def find_port() -> int:
    """A port of loopback that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def adapt(manifest: Manifest, port: int) -> Manifest:
    """Adapt a manifest to podman 4.3 on the host's network, where the server listens on ``port``.

    A Secret is plain, and its volume has ``optional``. Of the Deployment one pod is left, without
    ports; its containers run once, since podman would start an init container again and again.
    """
    if manifest["kind"] == "Secret":
        manifest["data"] = {key: base64.b64decode(value).decode() for key, value in manifest["data"].items()}
    if manifest["kind"] != "Deployment":
        return manifest
    template = manifest["spec"]["template"]
    spec = {**template["spec"], "restartPolicy": "Never"}
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["optional"] = False
    for container in spec["containers"]:
        container.pop("ports", None)
        container.setdefault("env", []).append({"name": "TUREEN_PORT", "value": str(port)})
    notes = {"io.podman.annotations.init.container.type": "always"}  # the chart's own is too long for podman
    metadata = {"name": "try", "labels": template["metadata"]["labels"], "annotations": notes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def run_podman(*arguments: str) -> str:
    """Run podman and return what it printed."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"podman {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def play(file: Path) -> Iterator[None]:
    """The pod of a file, until the end of the block."""
    try:
        run_podman("kube", "play", "--network", "host", str(file))
        yield
    finally:
        run_podman("kube", "down", str(file))


def remove_kept(manifests: list[Manifest]) -> None:
    """Remove the volumes that podman makes of claims, secrets and config maps and keeps, and the secrets."""
    for kind in ("volume", "secret"):
        kept = run_podman(kind, "ls", "--format", "{{.Name}}").split()
        for name in {manifest["metadata"]["name"] for manifest in manifests} & set(kept):
            run_podman(kind, "rm", name)


def score_when_ready(port: int) -> list[float]:
    """Wait until the server is ready, and score two answers."""
    with Client(f"http://127.0.0.1:{port}", api_key=KEY) as client:
        client.wait_until_ready(READY_SECONDS)
        candidates = ["A spider has eight legs.", "I do not know."]
        (row,) = client.score([{"prompt": "How many legs has a spider?", "candidates": candidates}]).data
    return [(each.scores or {})["helpful"].raw for each in row.candidates]


def main(image: str, further: dict[str, Any]) -> None:
    """Play the pod twice."""
    with tempfile.TemporaryDirectory() as scratch, serve_folder(Path(scratch)) as web:
        folder = Path(scratch)
        values = make_values(image, web.server_port, pack_model(folder)) | further
        port = find_port()
        manifests = [adapt(each, port) for each in Helm(fetch("4.3.1")).render(values) if each["kind"] in PLAYED]
        file = folder / "pod.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        remove_kept(manifests)  # of a run that was killed
        try:
            told = []
            for _ in range(2):
                with play(file):
                    scores = score_when_ready(port)
                    log = run_podman("logs", "try-fetch")
                print(f"{log.strip()}\nscores: {scores}")
                told.append((log.split()[0], scores))
                # podman makes a claim's volume once, and the second pod finds it
                again = [each for each in manifests if each["kind"] != "PersistentVolumeClaim"]
                file.write_text(yaml.safe_dump_all(again))
            assert told == [("fetched", scores), ("unchanged", scores)], told
        finally:
            remove_kept(manifests)


if __name__ == "__main__":
    main(sys.argv[1], yaml.safe_load(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else {})
