"""Runs by torchrun and accelerate, with DeepSpeed on the CPU: some together, since most of their time is importing."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MARKS = [
    pytest.mark.long,
    pytest.mark.timeout(1200),  # the first test waits for all the runs
    pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles its collective with g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed's CPU backend is for Linux"),
]
TORCHRUN, ACCELERATE = "torchrun", "accelerate"


@dataclass(frozen=True)
class Case:
    """A launcher, its processes, and what it changes of the recipe; ``loose`` is how far scores may be apart."""

    launcher: str
    processes: int
    changes: dict[str, Any]
    loose: float = 1e-3


@dataclass(frozen=True)
class Ran:
    """How a launcher ended."""

    status: int
    said: str
    folder: Path


def together(started: dict[str, tuple[subprocess.Popen[bytes], Path]]) -> dict[str, Ran]:
    try:
        return {
            name: Ran(process.wait(timeout=1200), log.read_text(), log.with_suffix(""))
            for name, (process, log) in started.items()
        }
    finally:
        for process, _ in started.values():
            process.terminate()  # which the launcher passes on
            process.wait()


def launch(path: Path, case: Case, *flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    """The launcher's process, and its log."""
    log, scripts = path.with_suffix(".log"), Path(sys.executable).parent
    count = str(case.processes)
    if case.launcher == TORCHRUN:
        words = [str(scripts / "torchrun"), "--nproc_per_node", count, "--master_port", str(free_port())]
    else:
        words = [str(scripts / "accelerate"), "launch", "--num_processes", count, "--num_machines", "1"]
        words += ["--use_deepspeed", "--zero_stage", "2", "--mixed_precision", "no", "--dynamo_backend", "no"]
        words += ["--main_process_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as sink:
        command = [*words, "-m", "tureen_train", "run", str(path), *flags]
        return subprocess.Popen(command, stdout=sink, stderr=sink, env=environment), log


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def losses(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Each step with its loss and the terms of it."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [entry for entry in entries if "loss" in entry]
    return [(entry["step"], {key: entry[key] for key in entry if key.startswith("loss")}) for entry in kept]
