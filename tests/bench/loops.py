"""Clients of one sample each, as training loops ask: this server beside vLLM's, Infinity and a server that blocks.

    make bench-loops
    python tests/bench/loops.py --shapes 4m --repeats 1 --prompts 2 --in-flight 8

One checkpoint with random weights, in float32, behind every server on this machine, which stay up side by side and
are asked in turn: 32 prompts with 8 answers each, one answer a request, 64 in flight; a prompt's answers come in a row,
as a trainer lists them, or scattered, as rollouts end. Texts are new in every repetition, and all servers get the same
ones. This server remembers no scores here. vLLM runs as it comes and with our engine's settings (blocks of 32 tokens
instead of 128 share more of a prompt). vLLM, the blocking server and ``/classify`` get conversations rendered; Infinity
gets the rendered prompt as a query. Ours is asked in one way in a run, since it would know the prompts the second time.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flood import Flood

from tureen_serve.process_environment import stay_offline
from tureen_serve.vllm_settings import VllmSettings

CONTEXT = 2048
ANSWER = (25, 95)  # tokens
PEERS = ("vllm", "vllm-tuned", "infinity", "blocking")
ORDERS = ("in a row", "scattered")
GOAL = 1.5


@dataclass
class Account:
    """One server's rates in samples a second, and each request's seconds and reward."""

    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def add(self, rate: float, latencies: Sequence[float], rewards: Sequence[float]) -> None:
        """Note one repetition."""
        self.rates.append(rate)
        self.latencies += latencies
        self.rewards += rewards

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def milliseconds(self, share: float) -> float:
        """What that share of requests took at most."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def main() -> None:
    """Measure and print."""
    asked = arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()  # before vLLM is imported
    with Flood(1) as flood:
        for shape in asked.shapes:
            for order, accounts in measure(shape, asked, flood).items():
                work = f"{asked.prompts} × {asked.answers}, {order}, {asked.in_flight} in flight"
                print(f"\n## {shape}, {work}\n\n{told(accounts)}", flush=True)


def measure(shape: str, asked: argparse.Namespace, flood: Flood) -> dict[str, dict[str, Account]]:
    """For each order every server's account, by name; ours come first."""
    import torch
    from bench.rewarding import Speech, checkpoint, tokenizer

    speech = Speech(tokenizer(None))
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint(shape, tokenizer(None), torch.device("cpu"), CONTEXT, Path(scratch) / "reward").folder
        with sites(folder, asked, speech) as found:
            accounts = {order: {site.name: Account() for site in found} for order in asked.orders}
            ask(found, flood, speech.loop(2, asked.prompt, 4, ANSWER, True), asked.in_flight)
            for repeat, order in ((repeat, order) for repeat in range(asked.repeats) for order in asked.orders):
                requests = speech.loop(asked.prompts, asked.prompt, asked.answers, ANSWER, order == "scattered")
                turn = [*found[repeat % len(found) :], *found[: repeat % len(found)]]
                for name, (answers, rewards) in ask(turn, flood, requests, asked.in_flight).items():
                    accounts[order][name].add(len(requests) / answers.seconds, answers.latencies, rewards)
    return accounts


def ask(sites: Sequence[Any], flood: Flood, requests: Any, in_flight: int) -> dict[str, Any]:
    """The answers and rewards of each, one after the other."""
    return {site.name: site.ask(flood, requests, in_flight) for site in sites}


@contextmanager
def sites(folder: Path, asked: argparse.Namespace, speech: Any) -> Iterator[list[Any]]:
    """All servers."""
    from bench import scorers

    settings = VllmSettings(cache_gib=1.0, rows=64, context=CONTEXT)
    peers = {
        "vllm": lambda: scorers.vllm_server(folder, settings, speech, shipped=True),
        "vllm-tuned": lambda: scorers.vllm_server(folder, settings, speech),
        "infinity": lambda: scorers.infinity(older(folder), speech),
        "blocking": lambda: scorers.blocking(folder, speech),
    }
    with ExitStack() as stack:
        own = [
            stack.enter_context(scorers.ours(folder, runtime, settings, {"kept_scores": 0}))
            for runtime in asked.runtimes
        ]
        theirs = [stack.enter_context(peers[name]()) for name in asked.peers]
        yield [*(scorers.in_their_dialect(site, speech) if asked.dialect else site for site in own), *theirs]


def older(folder: Path) -> Path:
    """The checkpoint as transformers 4 reads it, which does not know the tokenizer's class of 5."""
    import json
    import shutil

    copy = folder.with_name(f"{folder.name}-older")
    shutil.copytree(folder, copy)
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps({name: value for name, value in config.items() if name != "extra_special_tokens"}))
    return copy


def told(accounts: Mapping[str, Account]) -> str:
    """The table, and how much faster ours is than the fastest other."""
    from bench.shapes import table

    first = next(iter(accounts.values()))
    others = {name: each for name, each in accounts.items() if not name.startswith("tureen")}
    best = max(others, key=lambda name: others[name].rate, default=None)
    rows = [
        [
            name,
            f"{each.rate:.1f} ({min(each.rates):.1f}–{max(each.rates):.1f})",
            f"{each.milliseconds(0.5):.0f}",
            f"{each.milliseconds(0.99):.0f}",
            f"{each.rate / others[best].rate:.2f}" if best else "",
            f"{max(abs(one - other) for one, other in zip(each.rewards, first.rewards, strict=True)):.1e}",
        ]
        for name, each in accounts.items()
    ]
    heads = ["server", "samples/s (range)", "p50 ms", "p99 ms", "× the best other", "largest difference of a reward"]
    return f"{table(heads, rows)}\n\nthe best other is {best}; goal {GOAL}"


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", default=["4m", "135m"])
    parser.add_argument("--runtimes", nargs="+", default=["transformers"], help="this server's")
    parser.add_argument("--dialect", action="store_true", help="ask ours at /classify, as vLLM is")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    for name, default in (("repeats", 5), ("prompts", 32), ("answers", 8), ("prompt", 240), ("in-flight", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
