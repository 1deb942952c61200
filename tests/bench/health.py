"""How soon /health/live answers while a large batch is scored: the event loop must stay free."""

import statistics
import threading
import time
from typing import Any

import httpx2

ITEMS, CANDIDATES, WORDS = 24, 4, 60
POLLS = 120


def batch() -> dict[str, Any]:
    """A score request of about twelve thousand tokens."""
    words = " ".join(f"word{number % 97}" for number in range(WORDS))
    candidates = [f"{words} {number}" for number in range(CANDIDATES)]
    items = [{"prompt": f"Say {number}.", "candidates": candidates} for number in range(ITEMS)]
    return {"items": items, "rewards": ["helpful"]}


def poll(url: str, count: int, pause: float = 0.02) -> list[float]:
    """Milliseconds of ``count`` calls of /health/live, one after another."""
    found = []
    with httpx2.Client(base_url=url) as client:
        for _ in range(count):
            began = time.perf_counter()
            client.get("/health/live").raise_for_status()
            found.append(1000 * (time.perf_counter() - began))
            time.sleep(pause)
    return found


def under_load(url: str) -> tuple[list[float], float, int]:
    """Latencies while the batch runs, the batch's seconds, and its tokens."""
    took: list[tuple[float, int]] = []

    def score() -> None:
        began = time.perf_counter()
        reply = httpx2.post(f"{url}/v1/score", json=batch(), timeout=600)
        reply.raise_for_status()
        took.append((time.perf_counter() - began, reply.json()["usage"]["total_tokens"]))

    thread = threading.Thread(target=score)
    thread.start()
    latencies = []
    while thread.is_alive():
        latencies += poll(url, 5)
    thread.join()
    seconds, tokens = took[0]
    return latencies, seconds, tokens


def main(url: str) -> list[str]:
    """The table's lines."""
    idle = poll(url, POLLS)
    busy, seconds, tokens = under_load(url)
    lines = [f"| {'state':6} | calls | median ms | p99 ms |", "|---|---|---|---|"]
    for state, values in (("idle", idle), ("busy", busy)):
        p99 = statistics.quantiles(values, n=100)[-1]
        lines.append(f"| {state:6} | {len(values)} | {statistics.median(values):.1f} | {p99:.1f} |")
    ratio = statistics.median(busy) / statistics.median(idle)
    return [*lines, f"busy: {tokens} tokens in {seconds:.1f} s; ratio of medians {ratio:.1f}; goal: median under 50 ms"]
