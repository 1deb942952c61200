"""CPU that the event loop's thread takes for a request of one text: the front end, without the model's own thread.

    .venv/bin/python tests/bench/front_end.py

The server is a process of its own with tiny models. Its CPU comes from /proc: of its first thread, which is the event
loop's, and of all threads. Run it in two checkouts, in turn, to compare them; the figures are CPU and not wall time.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flood import Flood
from bench.shapes import table
from serve.artifacts import build
from serve.processes import START_SECONDS
from waiting import block_until

WORDS = ("the", "wind", "is", "lazy", "and", "leaves", "fall", "where", "nobody", "looks")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    asked = make_parser().parse_args()
    draw = random.Random(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder, Flood(1) as flood:
        command = [sys.executable, "-m", "tureen_serve", "--config", str(build(Path(folder)))]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            block_until(lambda: httpx2.get(f"{address}/health/ready").status_code == 200, START_SECONDS)
            url, process = f"{address}/v1/score", server.pid
            flood.ask(url, [make_body(draw) for _ in range(asked.requests // 4)], asked.in_flight)
            for turn in range(1, asked.turns + 1):
                before = read_cpu(process)
                answers = flood.ask(url, [make_body(draw) for _ in range(asked.requests)], asked.in_flight)
                loop, every = (
                    1000 * (after - earlier) / asked.requests
                    for after, earlier in zip(read_cpu(process), before, strict=True)
                )
                rows.append([str(turn), f"{loop:.3f}", f"{every:.3f}", f"{asked.requests / answers.seconds:.0f}"])
        finally:
            server.terminate()
            server.wait(60)
    print(table(["turn", "loop, ms a request", "all threads", "requests/s"], rows))


def make_parser() -> argparse.ArgumentParser:
    """What to run."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--requests", type=int, default=2_000)
    found.add_argument("--turns", type=int, default=3)
    found.add_argument("--in-flight", type=int, default=64)
    return found


def make_body(draw: random.Random) -> bytes:
    """A request for the score of one text that was not sent before."""
    prompt, answer = (" ".join(draw.choices(WORDS, k=12)) for _ in range(2))
    return json.dumps({"items": [{"prompt": prompt, "candidates": [answer]}], "rewards": ["helpful"]}).encode()


def read_cpu(process: int) -> tuple[float, float]:
    """Read the CPU seconds of a process's first thread and of all its threads."""
    return _read_stat(Path(f"/proc/{process}/task/{process}/stat")), _read_stat(Path(f"/proc/{process}/stat"))


def _read_stat(path: Path) -> float:
    fields = path.read_text().rpartition(")")[2].split()  # a program's name may have spaces
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
