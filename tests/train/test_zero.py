"""DeepSpeed for real, on the CPU: every ZeRO stage by its launcher ends with the artifact that a plain run makes.

All runs go on from one earlier stage, so that no random head stands between them. The launchers start together: most
of their time goes into importing.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_runs import history, records, reward_recipe, reward_run

from tureen_core.artifact import open_artifact
from tureen_train.config import resolve
from tureen_train.rewards.run import train_reward

pytestmark = [
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


BF16 = {"precision": "bf16", "lora": None}
CASES = {
    "stage 1, all weights, bf16": Case(TORCHRUN, 1, {"scale": {"zero": 1}, "model": BF16}, loose=0.3),
    "stage 2": Case(ACCELERATE, 1, {"scale": {"zero": 2}}),
    "stage 3, checkpointing": Case(TORCHRUN, 1, {"scale": {"zero": 3}, "model": {"gradient_checkpointing": True}}),
    "stage 3, offload, all weights": Case(
        TORCHRUN, 1, {"scale": {"zero": 3, "offload": True}, "model": {"lora": None}}
    ),
    "stage 3, two processes": Case(TORCHRUN, 2, {"scale": {"zero": 3}, "optimisation": {"batch": 2}}),
}


@dataclass(frozen=True)
class Ran:
    """How a launcher ended."""

    status: int
    said: str
    folder: Path


@pytest.fixture(scope="module")
def begun(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Earlier stages to go on from, with LoRA and with all weights."""
    found = {}
    for name, changes in {"lora": {}, "full": {"model": {"lora": None}}}.items():
        artifact = train_reward(reward_run(base, tmp_path_factory.mktemp(name), **changes))
        assert artifact is not None
        found[name] = str(artifact.folder)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


def recipe(base: Path, folder: Path, begun: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Pairs to train on, so that a mean of two processes' means is the mean; ragged prompts to be judged by."""
    for name in ("pairs", "ragged"):
        (folder / name).mkdir(exist_ok=True)
    pairs, ragged = records(folder / "pairs", count=16, widest=2), records(folder / "ragged", count=7, first=96)
    raw = reward_recipe(base, folder, **changes)
    raw["data"] = {
        "train": [{"path": str(pairs)}],
        "eval": {"ragged": {"path": str(ragged)}},
        "eval_whole": True,
        "holdout": 0,
    }
    raw["loss"] = {"lm_coefficient": 0.1}
    raw["optimisation"] = {**raw["optimisation"], "learning_rate": 1e-3, "max_steps": 3, "eval_batch": 2}
    raw["model"]["start"] = begun["full" if raw["model"]["lora"] is None else "lora"]
    return raw


@pytest.fixture(scope="module")
def ran(base: Path, folder: Path, begun: dict[str, str]) -> Iterator[dict[str, Ran]]:
    """All launchers, started together."""
    started = {name: launch(base, folder, begun, number, case) for number, (name, case) in enumerate(CASES.items())}
    try:
        yield {
            name: Ran(process.wait(timeout=1200), log.read_text(), out) for name, (process, log, out) in started.items()
        }
    finally:
        for process, _, _ in started.values():
            process.terminate()  # which the launcher passes on
            process.wait()


def launch(
    base: Path, folder: Path, begun: dict[str, str], number: int, case: Case
) -> tuple[subprocess.Popen[bytes], Path, Path]:
    out, log, path = folder / f"run-{number}", folder / f"{number}.log", folder / f"{number}.yaml"
    path.write_text(yaml.safe_dump({**recipe(base, folder, begun, **case.changes), "output": str(out)}))
    scripts = Path(sys.executable).parent
    count = str(case.processes)
    if case.launcher == TORCHRUN:
        words = [str(scripts / "torchrun"), "--nproc_per_node", count, "--master_port", str(free_port())]
    else:
        words = [str(scripts / "accelerate"), "launch", "--num_processes", count, "--num_machines", "1"]
        words += ["--use_deepspeed", "--zero_stage", "2", "--mixed_precision", "no", "--dynamo_backend", "no"]
        words += ["--main_process_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as sink:
        command = [*words, "-m", "tureen_train", "run", str(path)]
        return subprocess.Popen(command, stdout=sink, stderr=sink, env=environment), log, out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def plain(base: Path, folder: Path, begun: dict[str, str]) -> dict[bool, list[float]]:
    """Scores of the runs in this process, with all weights (true) and with LoRA."""
    found = {}
    for full in (False, True):
        changes: dict[str, Any] = {"model": {"lora": None}} if full else {}
        run = resolve({**recipe(base, folder, begun, **changes), "output": str(folder / f"plain-{full}")})
        assert run.kind == "reward"
        artifact = train_reward(run)
        assert artifact is not None
        found[full] = scores(artifact.folder)
    return found


def scores(folder: Path) -> list[float]:
    return [probe.scores["foxes"] for probe in open_artifact(folder).manifest.probes]


@pytest.mark.parametrize("name", CASES)
def test_a_stage_ends_with_the_plain_runs_artifact(
    name: str, ran: dict[str, Ran], plain: dict[bool, list[float]], begun: dict[str, str]
) -> None:
    one, case = ran[name], CASES[name]
    assert one.status == 0, one.said[-6000:]
    full = case.changes.get("model", {}).get("lora", 0) is None
    found = scores(one.folder / "artifact")
    assert found == pytest.approx(plain[full], abs=case.loose)
    assert found != pytest.approx(scores(Path(begun["full" if full else "lora"])), abs=0.01)


@pytest.mark.parametrize("name", CASES)
def test_the_save_was_read_again_in_a_fresh_process(name: str, ran: dict[str, Ran]) -> None:
    proof = json.loads((ran[name].folder / "proof.json").read_text())
    assert proof["process"] not in (None, os.getpid())
    assert proof["reread"] == pytest.approx(proof["live"], abs=CASES[name].loose)


@pytest.mark.parametrize("name", CASES)
def test_ragged_prompts_are_judged_once_each_whatever_the_processes(name: str, ran: dict[str, Ran]) -> None:
    entries = [entry for entry in history(ran[name].folder) if "eval_ragged_pairs" in entry]
    assert [entry["step"] for entry in entries] == [0, 3]
    assert {entry["eval_ragged_pairs"] for entry in entries} == {13}
