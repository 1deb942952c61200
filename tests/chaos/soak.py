"""A long mixed load on one server, and the slope of its memory.

    make soak
    python tests/chaos/soak.py --minutes 10

Callers score, label, chat, abandon streams and make mistakes, a few at a time. The table is the resident memory along
the way, in twentieths of the time. The slope is that of the second half.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
from chaos.sites import Site, run_site, write_config
from serve.artifacts import build

MIB = 2**20
WORDS = ("the", "wind", "is", "lazy", "and", "leaves", "fall", "where", "nobody", "looks")
EXPECTED = {200, 400, 404, 422}
AT_ONCE = 4

Answer = Callable[[httpx2.Client, random.Random], int]


@dataclass(frozen=True)
class SoakFigures:
    """What came of a soak.

    Attributes:
        statuses: how many replies had each status.
        samples: seconds since the begin, and bytes of resident memory then.
    """

    statuses: Counter[int]
    samples: Sequence[tuple[float, int]]

    @property
    def slope(self) -> float:
        """Bytes an hour, by least squares over the second half."""
        late = self.samples[len(self.samples) // 2 :]
        return 3600 * statistics.linear_regression(*zip(*late, strict=True)).slope

    def tell(self) -> str:
        """The figures in one line."""
        first, last = self.samples[len(self.samples) // 2][1], self.samples[-1][1]
        return (
            f"{sum(self.statuses.values())} requests in {self.samples[-1][0] / 60:.1f} minutes, {dict(self.statuses)}: "
            f"{last / MIB:.0f} MiB, {(last - first) / MIB:+.1f} MiB in the second half, "
            f"{self.slope / MIB:+.1f} MiB an hour"
        )


def write_text(draw: random.Random, most: int = 20) -> str:
    return f"{draw.getrandbits(32)} {' '.join(draw.choices(WORDS, k=draw.randint(1, most)))}"


def score(client: httpx2.Client, draw: random.Random) -> int:
    """Score several answers to a prompt."""
    item = {"prompt": write_text(draw), "candidates": [write_text(draw) for _ in range(draw.randint(1, 6))]}
    return client.post("/v1/score", json={"items": [item]}).status_code


def label(client: httpx2.Client, draw: random.Random) -> int:
    """Label two answers to a prompt."""
    item = {"prompt": write_text(draw), "candidates": [write_text(draw) for _ in range(2)]}
    body = {"items": [item], "preferences": {"helpful": 0.5, "amusing": 0.5}}
    return client.post("/v1/preferences", json=body).status_code


def chat(client: httpx2.Client, draw: random.Random) -> int:
    """Write a short text by a soup."""
    share = draw.random()
    return client.post("/v1/chat/completions", json=_chat(draw, {"calm": share, "dry": 1 - share}, 8)).status_code


def abandon(client: httpx2.Client, draw: random.Random) -> int:
    """Leave a stream after its first bytes."""
    body = {**_chat(draw, {"calm": 1.0}, 100), "stream": True, "logit_bias": {"2": -100}}
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_bytes(), b"")
        return reply.status_code


def mistake(client: httpx2.Client, draw: random.Random) -> int:
    """Send what no server can answer."""
    path, content = draw.choice(
        [
            ("/v1/score", b'{"items": [' + b"[" * draw.randint(1, 5000)),
            ("/v1/score", b'{"items": [{"prompt": "a"}]}'),
            ("/v1/score", write_text(draw, 2000).encode()),
            (f"/v1/{draw.getrandbits(32)}", b"{}"),
        ]
    )
    return client.post(path, content=content, headers={"content-type": "application/json"}).status_code


ANSWERS: Sequence[Answer] = (score, score, score, label, chat, abandon, mistake)


def _chat(draw: random.Random, weights: dict[str, float], tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": write_text(draw)}]
    return {"messages": messages, "preferences": weights, "max_tokens": tokens}


def soak(site: Site, seconds: float) -> SoakFigures:
    """Load a server for some seconds."""
    began, over = time.monotonic(), threading.Event()
    counts: list[Counter[int]] = [Counter() for _ in range(AT_ONCE)]

    def ask(place: int) -> None:
        draw = random.Random(place)
        with httpx2.Client(base_url=site.url, timeout=60) as client:
            while not over.is_set():
                counts[place][draw.choice(ANSWERS)(client, draw)] += 1

    samples = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asking = [pool.submit(ask, place) for place in range(AT_ONCE)]
        while (now := time.monotonic() - began) < seconds and not any(each.done() for each in asking):
            samples.append((now, site.read_resident()))
            over.wait(seconds / 120)
        over.set()
        for each in asking:
            each.result()
    site.wait_until_idle()
    samples.append((time.monotonic() - began, site.read_resident()))
    return SoakFigures(sum(counts, Counter()), samples)


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = build(Path(scratch) / "artifacts").parent
        with run_site(write_config(folder, "soak", limits={"kept_scores": 1024, "prompt_mib": 16})) as site:
            found = soak(site, 60 * asked.minutes)
    for seconds, resident in found.samples[:: max(len(found.samples) // 20, 1)]:
        print(f"{seconds / 60:7.1f} min {resident / MIB:8.1f} MiB")
    print(found.tell())
    if not found.statuses.keys() <= EXPECTED:
        raise SystemExit(f"a reply had none of the statuses {sorted(EXPECTED)}")


if __name__ == "__main__":
    main()
