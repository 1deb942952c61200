"""Run docker/compose.yaml by podman-compose: the server scores with its key, and refuses a caller without one.

    python tests/deploy/run_compose.py

The image of the file, of the target ``cpu``, is there already. Exit code 0: the server became ready, scored over the
published port, and ended within its time at ``down``. Where podman can publish no port, the output says so.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.dockerfile import ROOT, last
from deploy.play_chart import READY_SECONDS, find_port, run_podman

from tureen import Client
from tureen.errors import Unauthorized

FILE = ROOT / "docker" / "compose.yaml"
COMPOSE = str(Path(sys.executable).with_name("podman-compose"))
PROJECT = "tureen-try"
STOP_SECONDS = 70.0  # its stop_grace_period


def find_obstacle(image: str) -> str | None:
    """Say why podman can publish no port of a container here; None if it can."""
    command = ["podman", "run", "--rm", "--publish", f"127.0.0.1:{find_port()}:8900", "--entrypoint", "true", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def compose(*arguments: str, **environment: str) -> None:
    """Run podman-compose over the file."""
    command = [COMPOSE, "--project-name", PROJECT, "--file", str(FILE), *arguments]
    subprocess.run(command, env=os.environ | environment, check=True)


@contextmanager
def running(port: int, keys: Path) -> Iterator[None]:
    """The service ``cpu``, until the end of the block. What an earlier run left is removed."""
    variables = {"TUREEN_PORT": str(port), "TUREEN_KEYS": str(keys), "OMP_NUM_THREADS": "1"}
    compose("down", "--volumes", **variables)
    try:
        compose("up", "--detach", "cpu", **variables)
        yield
    finally:
        compose("down", "--volumes", **variables)


def main() -> None:
    """Start the service, ask it, and stop it."""
    image = yaml.safe_load(FILE.read_text())["services"]["cpu"]["image"]
    if obstacle := find_obstacle(image):
        print(f"\n!!! NOT TESTED: docker/compose.yaml. podman can publish no port here: {obstacle}\n")
        return
    port, key = find_port(), secrets.token_hex(32)
    user = int(last("cpu", "USER").partition(":")[0])
    with tempfile.TemporaryDirectory() as scratch:
        keys = Path(scratch) / "keys"
        keys.write_text(key)
        keys.chmod(0o600)
        if os.getuid() == 0:
            os.chown(keys, user, 0)
        url, began = f"http://127.0.0.1:{port}", time.monotonic()
        with running(port, keys):
            with Client(url, api_key=key) as client:
                client.wait_until_ready(READY_SECONDS)
                print(f"compose: ready {time.monotonic() - began:.0f} seconds after `up`")
                items = [{"prompt": "Why is the sky blue?", "candidates": ["It scatters blue light.", "Because."]}]
                (row,) = client.score(items, rewards=["academy"]).data
                print("scores:", [(each.scores or {})["academy"].raw for each in row.candidates])
            with Client(url, api_key="wrong-" + key) as stranger:
                try:
                    stranger.score(items)
                except Unauthorized:
                    pass
                else:
                    raise AssertionError("a wrong key was answered")
            (name,) = run_podman("ps", "--quiet", "--filter", f"label=io.podman.compose.project={PROJECT}").split()
            status = run_podman("exec", name, "cat", "/proc/1/status")
            assert f"Uid:\t{user}" in status, status
            assert "CapEff:\t0000000000000000" in status, status
            began = time.monotonic()
            run_podman("stop", "--time", f"{STOP_SECONDS:.0f}", name)
            print(f"compose: stopped in {time.monotonic() - began:.1f} seconds")
            assert run_podman("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"


if __name__ == "__main__":
    main()
