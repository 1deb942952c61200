"""HAProxy from the machine's own packages, in front of servers."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from waiting import block_until

SETTINGS = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option redispatch
  retries 3
frontend callers
  bind 127.0.0.1:{port}
  http-request return status 200 if {{ path /all-up }} {{ nbsrv(servers) ge {count} }}
  http-request return status 503 if {{ path /all-up }}
  default_backend servers
backend servers
  option httpchk GET /health/ready
  default-server check inter 100ms fall 1 rise 1
{servers}
"""


@contextmanager
def run_proxy(folder: Path, port: int, servers: Sequence[int]) -> Iterator[str]:
    """The address of a proxy before the servers at these ports; it asks each every 100 ms whether it is ready.

    Its path ``/all-up`` is 200 while all are.
    """
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("there is no HAProxy on this machine: `make haproxy` installs Debian's")
    lines = "\n".join(f"  server s{place} 127.0.0.1:{each}" for place, each in enumerate(servers))
    config = folder / "haproxy.cfg"
    config.write_text(SETTINGS.format(port=port, servers=lines, count=len(servers)))
    process = subprocess.Popen([program, "-db", "-f", str(config)], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_all_up(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_until_all_up(url: str) -> None:
    """Until the proxy sends requests to all servers."""

    def is_up() -> bool:
        try:
            return httpx2.get(f"{url}/all-up", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    block_until(is_up)
