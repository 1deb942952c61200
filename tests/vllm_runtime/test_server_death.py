"""A server whose vLLM engine is killed too often ends: all in flight are answered, and it is unready at once."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from serve.artifacts import PROBE, build
from serve.processes import Process
from serve.replies import Replies, read_last_event
from waiting import block_until

from tureen_serve.http_server import DEAD_STATUS

pytestmark = pytest.mark.timeout(900)
PROMISED_SECONDS = 5.0
UNREADY_SECONDS = 1.0
LONG = {"messages": PROBE[:1], "max_tokens": 400, "logit_bias": {"2": -100}}
ENGINE = {"TUREEN_RUNTIME": "vllm", "TUREEN_VLLM__CACHE_GIB": "0.25", "TUREEN_VLLM__ROWS": "8"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """A server whose engine is not started again."""
    found = Process("--config", str(build(tmp_path)), **ENGINE, TUREEN_VLLM__RESTARTS="0")
    yield found
    found.process.kill()
    found.process.communicate()


def kill_engine(server: Process) -> None:
    """Kill all processes that the server has started, without a word."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        os.kill(process.pid, signal.SIGKILL)


def test_a_server_ends_with_its_engine_and_answers_everything(server: Process) -> None:
    server.wait_until_ready()
    replies = Replies(server.address)
    replies.ask("stream", "/v1/chat/completions", {**LONG, "stream": True})
    for number in range(4):
        replies.ask(f"whole {number}", "/v1/chat/completions", LONG)
    block_until(lambda: replies.events > 2)
    kill_engine(server)
    killed = time.monotonic()
    block_until(lambda: server.get("/health/ready").status_code == 503)
    assert time.monotonic() - killed < UNREADY_SECONDS
    assert server.process.wait(60) == DEAD_STATUS
    assert time.monotonic() - killed < UNREADY_SECONDS + PROMISED_SECONDS
    replies.wait()
    code, _, text = replies.found.pop("stream")
    assert (code, read_last_event(text)["error"]["code"]) == (200, "engine_dead")
    assert len(replies.found) == 4
    for code, headers, text in replies.found.values():
        assert (code, headers["retry-after"], json.loads(text)["error"]["code"]) == (503, "10", "engine_dead")
