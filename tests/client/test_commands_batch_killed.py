"""``tureen batch run`` is killed by SIGKILL at every step it takes, and the next run makes one whole output."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from client.standin import StandIn, keep_silent, work
from typer.testing import CliRunner
from waiting import block_until

from tureen import cli
from tureen.batch_jobs import job

COMMAND = "from tureen.cli import app; app()"
KILLED_AT = """
import os, signal, sys
last, replace, count = int(sys.argv.pop(1)), os.replace, 0
def counted(*args):
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
os.replace = counted
"""
STEPS = ("begun", "uploaded", "created", "errors", "output", "ended")
LINES = 5


class Folder:
    """An input file with one line that fails, and the command over it."""

    def __init__(self, path: Path, standin: StandIn) -> None:
        self.path, self.standin = path, standin
        bodies: list[dict[str, Any]] = [{"text": str(number)} for number in range(LINES)]
        bodies[2]["fail"] = True
        rows = [
            {"custom_id": str(number), "method": "POST", "url": "/v1/score", "body": body}
            for number, body in enumerate(bodies)
        ]
        (path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    @property
    def command(self) -> list[str]:
        files = [str(self.path / name) for name in ("in.jsonl", "out.jsonl")]
        return ["batch", "run", *files, "--url", self.standin.url]

    def start(self, code: str = "", *arguments: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", code + COMMAND, *arguments, *self.command]
        return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def check(self) -> None:
        """The next run finishes it."""
        assert CliRunner().invoke(cli.app, self.command).exit_code == 1
        assert len(self.standin.jobs.batches) == 1
        assert self.ids("out.jsonl") == ["0", "1", "3", "4"]
        assert self.ids("out.errors.jsonl") == ["2"]
        names = ["in.jsonl", "out.errors.jsonl", "out.jsonl", "out.jsonl.tureen-batch"]
        assert sorted(path.name for path in self.path.iterdir()) == names

    def ids(self, name: str) -> list[str]:
        return [json.loads(line)["custom_id"] for line in (self.path / name).read_bytes().splitlines()]


@pytest.fixture
def folder(tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(job, "OFTEN", 0.001)
    return Folder(tmp_path, standin)


@pytest.mark.parametrize("step", STEPS)
def test_killed_before_something_is_put_in_its_place(folder: Folder, step: str) -> None:
    folder.standin.jobs.pace = LINES
    process = folder.start(KILLED_AT, str(STEPS.index(step) + 1))
    assert process.wait(60) == -signal.SIGKILL
    assert (folder.path / "out.jsonl").exists() is (step == "ended")
    folder.check()


async def do_and_say_nothing(scope: Any, receive: Any, send: Any) -> None:
    async def nobody(message: Any) -> None:
        pass

    await work(scope, receive, nobody)
    await keep_silent(scope, receive, send)


async def say_half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b'{"custom_id": "0"', "more_body": True})
    await keep_silent(scope, receive, send)


@pytest.mark.parametrize(
    ("before", "fault"),
    [
        (0, do_and_say_nothing),
        (1, do_and_say_nothing),
        (2, keep_silent),
        (3, keep_silent),
        (4, say_half),
        (5, say_half),
    ],
    ids=["uploading", "creating", "looking first", "looking last", "fetching errors", "fetching output"],
)
def test_killed_while_the_server_is_asked(folder: Folder, before: int, fault: Any) -> None:
    folder.standin.jobs.pace = LINES
    folder.standin.fail(*[work] * before, fault)
    process = folder.start()
    block_until(lambda: len(folder.standin.seen) > before)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert len(folder.standin.seen) == before + 1
    assert not (folder.path / "out.jsonl").exists()
    folder.check()
