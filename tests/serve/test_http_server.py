"""A runtime that dies or is stuck ends the process in time: all in flight are answered, and the log says why once."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from serve.artifacts import PROBE, build, prove
from serve.processes import Process
from serve.replies import Replies, read_last_event
from waiting import block_until

from tureen_serve.http_server import DEAD_STATUS

pytestmark = pytest.mark.timeout(900)
PROMISED_SECONDS = 5.0
FATAL = {"query": "leaf " * 60, "model": "helpful"}  # the only text of more than 50 tokens
LONG = {"messages": PROBE[:1], "max_tokens": 150, "logit_bias": {"2": -100}}
PROGRAM = """
import time, torch
from tureen_serve.__main__ import app
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.runtimes.on_transformers.generator import TransformersStepper

run, step = PackedScorer._run, TransformersStepper.step

def fail(self, rows, memory):
    if all(len(row.ids) <= 50 for row in rows):
        return run(self, rows, memory)
    while {stuck}:
        time.sleep(1)
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

def write_slowly(self):
    time.sleep(0.2)
    return step(self)

PackedScorer._run, TransformersStepper.step = fail, write_slowly
app()
"""

ENDLESS = """
import torch
from tureen_serve.__main__ import app
from tureen_serve.runtimes.late_loader import LateLoader

load = LateLoader.load

def load_for_ever(self, group):
    while "endless" in group[-1].names:
        torch.ones(300, 300) @ torch.ones(300, 300)
    return load(self, group)

LateLoader.load = load_for_ever
app()
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(params=[False, True], ids=["dead", "stuck"])
def server(request: Any, config: Path, tmp_path: Path) -> Iterator[Process]:
    """A server whose scores fail for ever, or never come, once :data:`FATAL` is asked for."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(stuck=request.param))
    environment = {"TUREEN_LIMITS__STUCK_SECONDS": "3"} if request.param else {}
    found = Process("--config", str(config), program=[str(program)], **environment)
    yield found
    found.process.kill()
    found.process.communicate()


def test_everything_in_flight_is_answered_and_the_process_ends(server: Process) -> None:
    server.wait_until_ready()
    assert server.get("/health/live").status_code == 200
    replies = Replies(server.address)
    replies.ask("stream", "/v1/chat/completions", {**LONG, "stream": True})
    replies.ask("whole", "/v1/chat/completions", LONG)
    block_until(lambda: replies.events > 2)
    replies.ask("fatal", "/get_reward", FATAL)
    block_until(lambda: "fatal" in replies.found)
    noticed = time.monotonic()
    for name in ("fatal", "whole"):
        block_until(lambda: name in replies.found)  # noqa: B023
        code, headers, text = replies.found[name]
        assert (code, headers["retry-after"], json.loads(text)["error"]["code"]) == (503, "10", "engine_dead")
    assert server.process.wait(60) == DEAD_STATUS
    assert time.monotonic() - noticed < PROMISED_SECONDS
    replies.wait()
    code, _, text = replies.found["stream"]
    assert (code, read_last_event(text)["error"]["code"]) == (200, "engine_dead")
    _, log = server.end()
    said = re.findall(r"^critical .*$", log, re.MULTILINE)
    assert len(said) == 1, log
    assert "the server ends with status 70 and must be started again: base-scores" in said[0]


def test_sighup_reads_the_file_again_also_during_the_start_and_sigterm_ends_a_load(tmp_path: Path) -> None:
    config, program = build(tmp_path), tmp_path / "program.py"
    program.write_text(ENDLESS)
    prove(tiny.reward(tmp_path / "models/endless", tmp_path / "base", "endless", 5))
    config.write_text(config.read_text() + f"load_roots: [{tmp_path}/models]\n")
    server = Process("--config", str(config), program=[str(program)])

    def list_names() -> set[str]:
        return {card["id"] for card in server.get("/v1/models").json().get("data", [])}

    config.write_text(config.read_text().replace("name: amusing", "name: merry"))
    server.process.send_signal(signal.SIGHUP)  # the models are still loading
    server.wait_until_ready()
    block_until(lambda: "merry" in list_names())
    config.write_text(config.read_text().replace("name: merry", "name: amusing"))
    server.process.send_signal(signal.SIGHUP)
    block_until(lambda: "amusing" in list_names())
    told: list[httpx2.Response] = []

    def load() -> None:
        told.append(httpx2.post(f"{server.address}/v1/models/endless/load", json={"path": "endless"}, timeout=300))

    thread = threading.Thread(target=load)
    thread.start()
    block_until(lambda: "tureen_http_requests_in_flight 2.0" in server.get("/metrics").text)
    assert server.score().status_code == 200
    server.process.terminate()
    thread.join()
    status, log = server.end()
    assert (told[0].status_code, told[0].json()["error"]["code"]) == (503, "draining")
    assert status == 0, log
    assert "Traceback" not in log
