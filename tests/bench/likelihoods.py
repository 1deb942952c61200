"""Log-likelihoods, as lm-eval asks for them: this server, by a soup and by the bare base, beside vLLM's on the base.

    make bench-likelihoods
    .venv-vllm/bin/python tests/bench/likelihoods.py --questions 2 --rounds 1

Needs vLLM. Both servers stay up side by side, in float32 with SmolLM2-135M-Instruct, and are asked in turn for the same
rows: questions with four choices each, one request a question, new in each round. A row is a question with a choice;
its result is the log-probability of the choice. The bare base must give what vLLM gives.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flood import Flood

from tureen_serve.process_environment import stay_offline
from tureen_serve.settings import STARTER

BASE = "smollm2-135m-instruct"
EXPERTS = ("academy", "business", "entertainment", "literature")
CHOICES = (" because it is cold.", " since the days grow short and dry.", " by chance.", " so that roots can rest.")
BARE: Mapping[str, Any] = {"preferences": {"academy": 0.0}, "soup": {"normalize": "none"}}
SOUP: Mapping[str, Any] = {"preferences": {"academy": 0.5, "literature": 0.5}}
ROOM = {"in_flight": 4096, "queue_tokens": 2**26, "deadline_seconds": 600.0}


@dataclass
class Account:
    """One server's rates in rows a second, and the log-probability of each row."""

    url: str
    fields: Mapping[str, Any]
    rates: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)

    def ask(self, flood: Flood, questions: list[list[tuple[list[int], int]]], in_flight: int) -> None:
        """Ask for all rows and note them."""
        bodies = []
        for rows in questions:
            prompts = [ids for ids, _ in rows]
            body = {"prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, **self.fields}
            bodies.append(json.dumps(body).encode())
        answers = flood.ask(self.url, bodies, in_flight)
        self.rates.append(sum(map(len, questions)) / answers.seconds)
        for rows, reply in zip(questions, answers.replies, strict=True):
            for (_, start), choice in zip(rows, json.loads(reply)["choices"], strict=True):
                self.rows.append(sum(choice["logprobs"]["token_logprobs"][start:-1]))


def main() -> None:
    """Measure and print."""
    asked = arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    stay_offline()  # before vLLM is imported
    from bench.shapes import table

    with Flood(1) as flood, servers(asked.runtimes) as found:
        for account in found.values():
            account.ask(flood, make_rows(2, asked.prompt, "to warm up"), 2)
            account.rates.clear()
        names = list(found)
        for number in range(asked.rounds):
            rows = make_rows(asked.questions, asked.prompt, f"round {number}")
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                found[name].ask(flood, rows, asked.in_flight)
    peer = found[names[-1]]
    lines = [
        [
            name,
            f"{statistics.median(each.rates):.1f} ({min(each.rates):.1f}–{max(each.rates):.1f})",
            f"{statistics.median(each.rates) / statistics.median(peer.rates):.2f}",
            f"{max(abs(one - other) for one, other in zip(each.rows, peer.rows, strict=True)):.1e}",
        ]
        for name, each in found.items()
    ]
    heads = ["server", "rows/s (range)", "× vLLM's server", "largest difference of a row from vLLM's server"]
    work = f"{asked.questions} questions of about {asked.prompt} words with {len(CHOICES)} choices"
    print(f"\n## {BASE}, {work}, {asked.in_flight} in flight\n\n{table(heads, lines)}")


def make_rows(questions: int, words: int, round_: str) -> list[list[tuple[list[int], int]]]:
    """For each question its rows: token ids, and where the choice begins."""
    from tureen_core.base import load_tokenizer, locate_base

    encode = load_tokenizer(locate_base(BASE)).encode
    found = []
    for number in range(questions):
        text = f"Question {number} of {round_}. " + "The lake was quiet and the boats lay still. " * (words // 9)
        question = encode(f"{text}Why do leaves fall? They fall", add_special_tokens=False)
        choices = [encode(choice, add_special_tokens=False) for choice in CHOICES]
        found.append([([*question, *choice], len(question)) for choice in choices])
    return found


@contextmanager
def servers(runtimes: list[str]) -> Iterator[dict[str, Account]]:
    """Ours by its runtimes, the soup before the bare base, and vLLM's last."""
    from bench.scorers import make_flags, run_process

    from tureen_core.base import locate_base
    from tureen_serve.starter.demo import find_free_port

    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for runtime in runtimes:
            port = find_free_port()
            family = {"name": "smollm2", "experts": [str(STARTER / "experts" / name) for name in EXPERTS]}
            config = folder / f"{runtime}.json"
            document = {"families": [family], "runtime": runtime, "limits": ROOM, "vllm": {"cache_gib": 1.0}}
            config.write_text(json.dumps({**document, "dtype": "float32", "port": port}))
            command = [sys.executable, "-m", "tureen_serve", "--config", str(config)]
            stack.enter_context(run_process(command, f"http://127.0.0.1:{port}/health/ready"))
            for name, fields in (("a soup", SOUP), ("the bare base", BARE)):
                url = f"http://127.0.0.1:{port}/v1/completions"
                found[f"tureen, {runtime}, {name}"] = Account(url, {"model": "smollm2", **fields})
        port = find_free_port()
        flags = {"model": locate_base(BASE), "served_model_name": "base", "host": "127.0.0.1", "port": port}
        more = {"dtype": "float32", "max_model_len": 2048, "kv_cache_memory_bytes": 2**30}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *make_flags({**flags, **more})]
        stack.enter_context(run_process(command, f"http://127.0.0.1:{port}/health"))
        found["vLLM's server, the base"] = Account(f"http://127.0.0.1:{port}/v1/completions", {"model": "base"})
        yield found


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runtimes", nargs="+", default=["transformers", "vllm"], help="this server's")
    for name, default in (("questions", 32), ("prompt", 180), ("in-flight", 8), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
