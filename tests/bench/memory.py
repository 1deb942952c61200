"""Resident memory of the starter's server over many texts and chats, beside the bound that it states.

    make bench-memory

The server is a process of its own. It scores mixed texts of 20 to 512 tokens, a few requests at a time, then writes
short chats by mixed weights of its experts. The table is its resident memory along the way. "memory" in its log is the
bound. The last column is the growth since the first tenth, which must not rise.
"""

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
from bench.shapes import table

MIB = 2**20
WAIT = 600.0  # seconds, the longest that a request may ask for
HEADERS = {"content-type": "application/json", "x-request-timeout-ms": str(int(WAIT * 1000))}
WORDS = ("the", "of", "and", "in", "is", "you", "that", "it", "was", "for", "on", "are", "with", "his", "they", "be")
EXPERTS = ("academy", "business", "entertainment", "literature")


@dataclass(frozen=True)
class Site:
    """A running server: its address, its process, and what its log says of memory."""

    url: str
    process: int
    bound: str

    def read_resident(self) -> int:
        """Read its resident memory in bytes."""
        status = Path(f"/proc/{self.process}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


def main() -> None:
    """Measure and print."""
    asked = make_parser().parse_args()
    draw = random.Random(asked.seed)
    with serve_starter(asked.flag or []) as site:
        print(f"loaded: {site.read_resident() / MIB:.0f} MiB; {site.bound}")
        for name, count, post in (("texts", asked.texts, score_text), ("chats", asked.chats, write_chat)):
            if count:
                print(table([name, "MiB", "growth"], run(site, count, post, draw, asked.at_once)))


def make_parser() -> argparse.ArgumentParser:
    """What to run."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--texts", type=int, default=20_000)
    found.add_argument("--chats", type=int, default=2_000)
    found.add_argument("--at-once", type=int, default=4, help="requests in flight")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--flag", action="append", help="one more argument of tureen-serve; may be repeated")
    return found


@contextmanager
def serve_starter(flags: Sequence[str]) -> Iterator[Site]:
    """A server of the starter's artifacts, until the block ends.

    Raises:
        RuntimeError: it ended, or was not ready in ten minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile("w+") as log:
        command = [sys.executable, "-m", "tureen_serve", "--starter", "--port", str(port), *flags]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            last = time.monotonic() + WAIT
            while not is_ready(url):
                if process.poll() is not None or time.monotonic() > last:
                    raise RuntimeError(f"the server is not ready: {Path(log.name).read_text()[-2000:]}")
                time.sleep(0.5)
            stated = re.search(r"at most [^\"\n]*", Path(log.name).read_text())
            yield Site(url, process.pid, stated[0] if stated else "no bound is stated")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def is_ready(url: str) -> bool:
    """Whether the server answers that it is ready."""
    try:
        return httpx2.get(f"{url}/health/ready", timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def run(
    site: Site, count: int, post: Callable[[httpx2.Client, str, random.Random], None], draw: random.Random, at_once: int
) -> list[list[str]]:
    """Send ``count`` requests, and read the memory after each tenth."""
    rows, first = [], 0
    with httpx2.Client(timeout=WAIT) as client, ThreadPoolExecutor(at_once) as pool:
        for tenth in range(1, 11):
            seeds = [draw.randrange(2**32) for _ in range(count // 10)]
            list(pool.map(lambda seed: post(client, site.url, random.Random(seed)), seeds))
            resident = site.read_resident()
            first = first or resident
            rows.append([str(tenth * (count // 10)), f"{resident / MIB:.0f}", f"{(resident - first) / MIB:+.0f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    return rows


def write_words(draw: random.Random, least: int, most: int) -> str:
    """Random words, of about a token each."""
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


def score_text(client: httpx2.Client, url: str, draw: random.Random) -> None:
    """Score an answer by one domain's reward."""
    item = {"prompt": write_words(draw, 10, 240), "candidates": [write_words(draw, 5, 240)]}
    send(client, f"{url}/v1/score", {"items": [item], "rewards": [draw.choice(EXPERTS)]})


def write_chat(client: httpx2.Client, url: str, draw: random.Random) -> None:
    """Write an answer by two experts."""
    first, second = draw.sample(EXPERTS, 2)
    share = draw.random()
    body = {
        "messages": [{"role": "user", "content": write_words(draw, 10, 200)}],
        "preferences": {first: share, second: 1 - share},
        "max_tokens": draw.randint(4, 24),
    }
    send(client, f"{url}/v1/chat/completions", body)


def send(client: httpx2.Client, url: str, body: Any) -> None:
    """Post a body.

    Raises:
        RuntimeError: the server refuses it.
    """
    reply = client.post(url, content=json.dumps(body), headers=HEADERS)
    if reply.status_code != 200:
        raise RuntimeError(f"{reply.status_code}: {reply.text[:500]}")


if __name__ == "__main__":
    main()
