"""Start a server with the starter artifacts in a process of its own, and stop it at the end."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tureen import Client
from tureen.errors import DeadlineExceeded, Unavailable

STARTER = (sys.executable, "-m", "tureen_serve", "--starter")
LOOK = 5.0


@contextmanager
def run_server(command: Sequence[str] = STARTER, patience: float = 600.0) -> Iterator[str]:
    """Run a server while the block runs. Yields its address when it is ready.

    Args:
        command: the command line of the server; ``--port`` is added.
        patience: the longest time until it is ready, in seconds.

    Raises:
        Unavailable: the server ended, or is not ready in time.
    """
    port = _free_port()
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            _await(client, process, patience)
        yield url
    finally:
        _end(process)


def _await(client: Client, process: subprocess.Popen[bytes], patience: float) -> None:
    for _ in range(max(1, round(patience / LOOK))):
        if process.poll() is not None:
            raise Unavailable(f"the server ended with status {process.returncode} before it was ready")
        try:
            return client.wait_until_ready(LOOK)
        except DeadlineExceeded:
            continue
    raise Unavailable(f"the server is not ready after {patience:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
