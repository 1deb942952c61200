"""A server for the clients of others, and a run of their programs: each in its own environment; it prints one JSON."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import tiny
from prometheus_client.parser import text_string_to_metric_families
from serve.keys import make_entry, write_entries
from serve.processes import Process, run_server

ENVIRONMENTS = Path(__file__).parents[2] / ".venv-clients"
KEY, ENTRY = make_entry("suite")
# a key for each program that spends a quota, since they share the server
SPENT = {name: make_entry(f"spent-by-{name}", quota={"requests_per_minute": 1}) for name in ("node", "openai")}
LONGEST = 8192  # tokens of a context; the tokenizer of the tiny models has hardly more than bytes
SERVER = """
rewards: [{path: helpful}]
families:
  - name: tiny
    experts: [calm, dry]
    presets: {still: {calm: 1}}
keys: keys.json
batches: {folder: state}
access: {open_metrics: true}
port: 0
dtype: float32
device: cpu
"""


def must_run(name: str) -> bool:
    """Whether an environment is there, or this is the command that makes it."""
    return (ENVIRONMENTS / name / ".ready").exists() or bool(os.environ.get("TUREEN_CLIENTS"))


@contextmanager
def serving(folder: Path) -> Iterator[Process]:
    """A server of a policy that writes tools, with two experts and a long context, of a reward and of some keys."""
    base = write_family(folder, "base", LONGEST, ("calm", "dry"))
    tiny.reward(folder / "helpful", base, "helpful", 0)
    with serve_with_keys(folder, SERVER) as running:
        yield running


def write_family(folder: Path, name: str, context: int, experts: Sequence[str]) -> Path:
    """Write a base that writes tools, with a context of so many tokens, and its experts. Returns the base's folder."""
    base = tiny.base_with_tools(folder / name)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    for seed, expert in enumerate(experts, 10):
        tiny.expert(folder / expert, base, expert, seed)
    return base


@contextmanager
def serve_with_keys(folder: Path, config: str) -> Iterator[Process]:
    """A server with batches, whose file of keys has :data:`KEY` and those with a quota."""
    write_entries(folder / "keys.json", ENTRY, *(entry for _, entry in SPENT.values()))
    (folder / "server.yaml").write_text(config)
    with run_server(folder / "server.yaml", TUREEN_BATCHES__ENABLED="true") as running:
        yield running


def ask(server: Process, path: str, body: Any) -> Any:
    """The reply of a route to a body, without a client."""
    found = httpx2.post(f"{server.address}{path}", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=120)
    assert found.status_code == 200, found.text
    return found.json()


def count_replies(server: Process) -> Counter[tuple[str, int]]:
    """How often each of OpenAI's routes has answered each status."""
    found: Counter[tuple[str, int]] = Counter()
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "tureen_http_requests_total" and sample.labels["route"].startswith("/v1/"):
                found[sample.labels["route"], int(sample.labels["status"])] += int(sample.value)
    return found


def run_program(
    server: Process, command: Sequence[str | Path], script: Path | None = None, cwd: Path | None = None, **more: str
) -> tuple[Any, Mapping[tuple[str, int], int]]:
    """Run a program to its end, with the server in OpenAI's variables.

    Args:
        command: the program and its arguments.
        script: what it reads from its standard input.
        more: further variables.

    Returns:
        The JSON of the last line that it printed, and how often each route answered each status meanwhile.
    """
    before = count_replies(server)
    ran = subprocess.run(
        [str(each) for each in command],
        input=script.read_text() if script else "",
        env={**os.environ, "OPENAI_BASE_URL": f"{server.address}/v1", "OPENAI_API_KEY": KEY, **more},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-20_000:]
    return json.loads(ran.stdout.splitlines()[-1]), dict(count_replies(server) - before)
