"""Ten times more requests than a server can answer, and 200 callers who leave: this server beside vLLM's and Infinity.

    make bench-overload
    python tests/bench/overload.py --seconds 10 --peers vllm

One checkpoint with random weights behind each server, one server after another. Its peak is the goodput of a closed
loop. Then requests come by the clock, ten times as many, and each caller waits ``--deadline`` seconds; an answer within
them is good. At last 200 callers send a request and leave at once, and one more asks: how long does it wait?
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2

from tureen.bench.loops import Bounds, run_load
from tureen.bench.trial import Load, summarise_trials
from tureen.bench.workloads import Workload
from tureen_serve.process_environment import stay_offline
from tureen_serve.vllm_settings import VllmSettings

CONTEXT, LEAVERS, PATIENCE = 2048, 200, 60.0
HEADS = [
    "server",
    "peak/s",
    "goodput/s at 10 ×",
    "of peak",
    "refused",
    "timed out",
    "p99 of a refusal, ms",
    "first answer after 200 left, s",
]


def main() -> None:
    """Measure and print."""
    asked = make_parser().parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()  # before vLLM is imported
    import torch
    from bench.rewarding import Speech, checkpoint, tokenizer
    from bench.shapes import table

    tokens = tokenizer(None)
    speech = Speech(tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint(asked.shape, tokens, torch.device("cpu"), CONTEXT, Path(scratch) / "reward").folder
        rows = []
        for opened in list_servers(folder, asked.peers, speech):
            with opened as site:
                rows.append(attack(site, speech, asked))
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
        print(table(HEADS, rows))


def list_servers(folder: Path, peers: Sequence[str], speech: Any) -> list[AbstractContextManager[Any]]:
    """Ours first; each starts when it is entered."""
    from bench import scorers
    from bench.loops import older

    settings = VllmSettings(cache_gib=1.0, rows=64, context=CONTEXT)
    known: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "vllm": lambda: scorers.vllm_server(folder, settings, speech, shipped=True),
        "infinity": lambda: scorers.infinity(older(folder), speech),
    }
    return [scorers.ours(folder, "transformers", settings, {}), *(known[name]() for name in peers)]


def attack(site: Any, speech: Any, asked: argparse.Namespace) -> list[str]:
    """One row of the table."""
    place = urlsplit(site.url)
    base = f"{place.scheme}://{place.netloc}"
    pool = iter(speech.singles(20_000, asked.tokens, 1))
    work = Workload(place.path, lambda number: json.dumps(site.body(next(pool))).encode())
    best = Load(concurrency=8)
    run_load(base, work, best, Bounds(2, 16, 120), 0)  # a first run compiles and fills
    peak = summarise_trials(best, run_load(base, work, best, Bounds(asked.seconds, 10_000, 120), 0))["goodput"]
    flood = Load(rate=10 * peak)
    found = summarise_trials(flood, run_load(base, work, flood, Bounds(asked.seconds, 10_000, asked.deadline), 0))
    seconds = measure_recovery(site.url, [work.build_body(number) for number in range(LEAVERS + 1)])
    p99 = found["refusal_latency"]["p99"]
    refused = ", ".join(f"{status}: {count}" for status, count in found["refusals"].items()) or "0"
    shares = [f"{peak:.2f}", f"{found['goodput']:.2f}", f"{found['goodput'] / peak:.0%}"]
    ends = [refused, str(sum(found["errors"].values())), "" if p99 is None else f"{1000 * p99:.0f}"]
    ends.append(f"{seconds:.1f}" if seconds < math.inf else f"over {PATIENCE:g}")
    return [site.name, *shares, *ends]


def measure_recovery(url: str, bodies: Sequence[bytes]) -> float:
    """The seconds until a request is answered after all other callers have left; infinity after :data:`PATIENCE`."""
    from chaos.callers import call, frame_request, hang_up

    path = urlsplit(url).path
    hang_up([call(url, frame_request(path, body)) for body in bodies[1:]])
    began = time.monotonic()
    try:
        httpx2.post(url, content=bodies[0], headers={"content-type": "application/json"}, timeout=PATIENCE)
    except httpx2.TimeoutException:
        return math.inf
    return time.monotonic() - began


def make_parser() -> argparse.ArgumentParser:
    """What to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="135m")
    parser.add_argument("--peers", nargs="*", choices=("vllm", "infinity"), default=["vllm", "infinity"])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds that a caller waits")
    parser.add_argument("--tokens", type=int, default=200, help="mean length of a text")
    return parser


if __name__ == "__main__":
    main()
