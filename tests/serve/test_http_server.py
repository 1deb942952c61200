"""A runtime that dies or is stuck ends the process in time: all in flight are answered, and the log says why once."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.artifacts import PROBE, build
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
