"""The built image, run as clusters run it: read only, without capabilities, as a user id that nobody knows.

``make deploy-test`` builds the image and names it by ``TUREEN_IMAGE``; without that these tests are skipped.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from waiting import block_until

from tureen import Client

IMAGE = os.environ.get("TUREEN_IMAGE", "")
USER = "1000670000:0"  # as OpenShift gives them
START_SECONDS = 300.0
LONGEST_SECONDS = 1800
CALLERS = 4

pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="TUREEN_IMAGE names no image: make deploy-test builds one"),
    pytest.mark.timeout(900),
]


def podman(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


class Container:
    """A server of the image, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.key = secrets.token_hex(32)
        keys = folder / "keys"
        keys.write_text(self.key)
        self.began = time.monotonic()
        self.name = podman(
            *("run", "--detach", "--network", "host", "--no-healthcheck", "--user", USER, "--memory", "4g"),
            *("--timeout", f"{LONGEST_SECONDS}"),  # where the tests are killed, it ends all the same
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:size=1g"),
            *("--volume", f"{keys}:/run/secrets/tureen/keys:ro", "--volume", "/var/cache/tureen"),
            *(
                "--volume",
                "/var/spool/tureen",
                "--env",
                f"TUREEN_PORT={self.port}",
                "--env",
                "OMP_NUM_THREADS=1",
                IMAGE,
            ),
        )

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    def inspect(self, field: str) -> str:
        """Read a field of the container's state."""
        return podman("inspect", "--format", f"{{{{.State.{field}}}}}", self.name)

    def answers(self, path: str) -> bool:
        """Whether a path answers 200."""
        assert self.inspect("Running") == "true", podman("logs", self.name)
        try:
            return httpx2.get(f"{self.url}{path}").status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM, and return the exit code and the seconds that it took."""
        began = time.monotonic()
        podman("stop", "--time", "70", self.name)
        return int(self.inspect("ExitCode")), time.monotonic() - began

    def remove(self) -> None:
        """Remove the container and its volumes."""
        podman("rm", "--force", "--time", "0", "--volumes", self.name, check=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A server that is ready."""
    assert shutil.which("podman"), "install podman to run the image"
    container = Container(tmp_path_factory.mktemp("server"))
    try:
        block_until(lambda: container.answers("/health/ready"), START_SECONDS)
        print(f"ready {time.monotonic() - container.began:.0f} seconds after its start")
        yield container
    finally:
        container.remove()


def test_the_process_has_no_rights(server: Container) -> None:
    status = dict(line.split(":", 1) for line in podman("exec", server.name, "cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == [USER.partition(":")[0]] * 4
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert podman("exec", server.name, "touch", "/opt/tureen/x", check=False) == ""
    assert "x" not in podman("exec", server.name, "ls", "/opt/tureen").split()


def test_commands_are_those_whose_libraries_are_in(server: Container) -> None:
    assert podman("exec", server.name, "tureen-serve", "version") in IMAGE
    assert "sweep" in podman("exec", server.name, "tureen", "--help")
    found = podman("exec", server.name, "ls", "/opt/tureen/bin").split()
    assert "tureen-train" not in found
    assert "cc" not in found


def test_the_health_check_follows_the_port(server: Container) -> None:
    told = json.loads(podman("image", "inspect", IMAGE))[0]
    assert told["Labels"]["org.opencontainers.image.version"] in IMAGE
    (kind, *command) = told["Healthcheck"]["Test"]
    assert kind == "CMD"
    podman("exec", server.name, *command)
    with pytest.raises(AssertionError, match="refused"):
        podman("exec", "--env", "TUREEN_PORT=9", server.name, *command)


def test_the_bill_of_materials_names_what_is_in(server: Container) -> None:
    bill = json.loads(podman("exec", server.name, "cat", "/opt/tureen/sbom.cdx.json"))
    names = {part["name"].lower() for part in bill["components"]}
    assert {"torch", "tureen", "transformers", "s3fs", "gcsfs", "adlfs"} <= names
    assert "cyclonedx-bom" not in names


def test_it_scores_labels_and_sweeps(server: Container) -> None:
    with Client(server.url, api_key=server.key) as client:
        items = [{"prompt": "Why is the sky blue?", "candidates": ["It scatters blue light.", "Because."]}]
        scores = client.score(items, rewards=["academy"])
        assert len(scores.data[0].candidates) == 2
        labels = client.preferences(items, preferences={"academy": 1})
        assert labels.model_dump()["data"][0]["chosen"] in (0, 1)
        points = [{"academy": 1.0}, {"literature": 1.0}]
        reply = client.sweep("Tell of the sea.", points, max_tokens=4)
        assert len({str(choice.preferences) for choice in reply.choices}) == 2
    assert httpx2.post(f"{server.url}/v1/score", json={}).status_code == 401


def test_it_fetches_an_artifact(server: Container) -> None:
    starter = podman("exec", server.name, "python", "-c", "from tureen_serve.settings import STARTER; print(STARTER)")
    flags = ("--source", f"{starter}/rewards/academy", "--to", "/var/cache/tureen/models/academy")
    assert podman("exec", server.name, "tureen-serve", "fetch", *flags).startswith("fetched")
    assert podman("exec", server.name, "tureen-serve", "fetch", *flags).startswith("unchanged")


def test_sigterm_under_load_loses_no_request(server: Container) -> None:
    told: list[str] = []
    stopped = threading.Event()

    def call() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            told.append(_score(server, f"{threading.get_ident()} {number}"))

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call) for _ in range(CALLERS)]
        block_until(lambda: len(told) > 4 * CALLERS)
        code, seconds = server.stop()
        stopped.set()
        for caller in callers:
            caller.result()
    counts = {each: told.count(each) for each in sorted(set(told))}
    print(f"stopped in {seconds:.1f} seconds: {counts}")
    assert code == 0
    assert set(counts) <= {"200", "503", "refused"}


def _score(server: Container, text: str) -> str:
    body = {"rewards": ["academy"], "items": [{"prompt": "Why?", "candidates": [text]}]}
    headers = {"authorization": f"Bearer {server.key}", "connection": "close"}
    try:
        return str(httpx2.post(f"{server.url}/v1/score", json=body, headers=headers, timeout=60).status_code)
    except httpx2.ConnectError:
        time.sleep(0.05)
        return "refused"
    except httpx2.TransportError as error:
        return f"lost: {error!r}"


def test_sigterm_in_the_first_second_ends_it(tmp_path: Path) -> None:
    for _ in range(3):
        container = Container(tmp_path)
        try:
            code, seconds = container.stop()
            assert code in (0, 143), podman("logs", container.name)
            assert seconds < 60, "the signal was lost, and podman killed the process"
        finally:
            container.remove()
