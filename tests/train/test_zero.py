"""DeepSpeed for real, on the CPU: every ZeRO stage by its launcher ends with the artifact that a plain run makes.

All runs go on from one earlier stage, so that no random head stands between them. The launchers start together: most
of their time goes into importing.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from train.launching import ACCELERATE, MARKS, TORCHRUN, Case, Ran, launch, losses, together
from train.tiny_runs import history, records, reward_recipe, reward_run

from tureen_core.artifact import open_artifact
from tureen_train.config import resolve_recipe
from tureen_train.rewards.run import train_reward

pytestmark = MARKS

STEPS = 4


BF16 = {"precision": "bf16", "lora": None}
HALF = {"batch": 2}  # of the plain run's prompts, on each of two processes
CASES = {
    "stage 1, all weights, bf16": Case(TORCHRUN, 1, {"scale": {"zero": 1}, "model": BF16}, loose=0.3),
    "stage 3, offload, all weights": Case(
        TORCHRUN, 1, {"scale": {"zero": 3, "offload": True}, "model": {"lora": None}}
    ),
    "DDP, two processes": Case(TORCHRUN, 2, {"optimisation": HALF}),
    "stage 2, two processes": Case(
        ACCELERATE,
        2,
        {"scale": {"zero": 2}, "optimisation": {"batch": 1, "accumulation": 2}, "watch": {"save_every": 2}},
    ),
    "stage 3, two processes, checkpointing": Case(
        TORCHRUN,
        2,
        {
            "scale": {"zero": 3},
            "optimisation": HALF,
            "model": {"gradient_checkpointing": True},
            "watch": {"save_every": 2},
        },
    ),
}
SPLIT = [name for name, case in CASES.items() if case.processes > 1]
SAVED = [name for name, case in CASES.items() if "watch" in case.changes]


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
    """Ragged prompts to train on and to be judged by, so that processes have unlike numbers of pairs."""
    for name in ("train", "ragged"):
        (folder / name).mkdir(exist_ok=True)
    train, ragged = records(folder / "train", count=16, widest=4), records(folder / "ragged", count=7, first=96)
    raw = reward_recipe(base, folder, **changes)
    raw["data"] = {
        "train": [{"path": str(train)}],
        "eval": {"ragged": {"path": str(ragged)}},
        "eval_whole": True,
        "holdout": 0,
    }
    raw["loss"] = {"lm_coefficient": 0.1}
    raw["optimisation"] = {**raw["optimisation"], "learning_rate": 1e-3, "max_steps": STEPS, "eval_batch": 2}
    raw["model"]["start"] = begun["full" if raw["model"]["lora"] is None else "lora"]
    return raw


@pytest.fixture(scope="module")
def ran(base: Path, folder: Path, begun: dict[str, str]) -> dict[str, Ran]:
    """All launchers, started together."""
    recipes = {name: write(base, folder, begun, name) for name in CASES}
    return together({name: launch(path, CASES[name]) for name, path in recipes.items()})


@pytest.fixture(scope="module")
def resumed(ran: dict[str, Ran]) -> dict[str, Ran]:
    """Those that saved at the half, as if they had ended there, gone on with."""
    for name in SAVED:
        shutil.rmtree(ran[name].folder / "checkpoints" / f"checkpoint-{STEPS}")
        shutil.copy(ran[name].folder / "history.jsonl", ran[name].folder / "straight.jsonl")
    return together({name: launch(ran[name].folder.with_suffix(".yaml"), CASES[name], "--resume") for name in SAVED})


def write(base: Path, folder: Path, begun: dict[str, str], name: str) -> Path:
    path = folder / f"run-{list(CASES).index(name)}.yaml"
    raw = recipe(base, folder, begun, **CASES[name].changes)
    path.write_text(yaml.safe_dump({**raw, "output": str(path.with_suffix(""))}))
    return path


@pytest.fixture(scope="module")
def plain(base: Path, folder: Path, begun: dict[str, str]) -> dict[bool, Path]:
    """The runs' folders in this process, with all weights (true) and with LoRA."""
    found = {}
    for full in (False, True):
        changes: dict[str, Any] = {"model": {"lora": None}} if full else {}
        run = resolve_recipe({**recipe(base, folder, begun, **changes), "output": str(folder / f"plain-{full}")})
        assert run.kind == "reward"
        assert train_reward(run) is not None
        found[full] = Path(run.output)
    return found


def scores(folder: Path) -> list[float]:
    return [probe.scores["foxes"] for probe in open_artifact(folder).manifest.probes]


@pytest.mark.parametrize("name", CASES)
def test_a_stage_ends_with_the_plain_runs_artifact(
    name: str, ran: dict[str, Ran], plain: dict[bool, Path], begun: dict[str, str]
) -> None:
    one, case = ran[name], CASES[name]
    assert one.status == 0, one.said[-6000:]
    full = case.changes.get("model", {}).get("lora", 0) is None
    found = scores(one.folder / "artifact")
    assert found == pytest.approx(scores(plain[full] / "artifact"), abs=case.loose)
    assert found != pytest.approx(scores(Path(begun["full" if full else "lora"])), abs=0.01)


@pytest.mark.parametrize("name", SPLIT)
def test_two_processes_log_the_losses_of_one(name: str, ran: dict[str, Ran], plain: dict[bool, Path]) -> None:
    """Each step's loss is the mean over the pairs and texts of both, however many each has."""
    found, expected = losses(ran[name].folder / "history.jsonl"), losses(plain[False] / "history.jsonl")
    assert [step for step, _ in found] == list(range(1, STEPS + 1))
    for (_, own), (_, other) in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("name", SAVED)
def test_a_resumed_run_is_the_straight_one(name: str, ran: dict[str, Ran], resumed: dict[str, Ran]) -> None:
    assert resumed[name].status == 0, resumed[name].said[-6000:]
    straight, again = (losses(ran[name].folder / file) for file in ("straight.jsonl", "history.jsonl"))
    assert [step for step, _ in again] == [step for step, _ in straight] == list(range(1, STEPS + 1))
    for (_, own), (_, other) in zip(again, straight, strict=True):
        assert own == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_save_was_read_again_in_a_fresh_process(name: str, ran: dict[str, Ran]) -> None:
    proof = json.loads((ran[name].folder / "proof.json").read_text())
    assert proof["process"] not in (None, os.getpid())
    live, again = proof["live"]["1"], proof["reread"]["1"]
    assert again == [pytest.approx(row, abs=CASES[name].loose) for row in live]


@pytest.mark.parametrize("name", CASES)
def test_ragged_prompts_are_judged_once_each_whatever_the_processes(name: str, ran: dict[str, Ran]) -> None:
    entries = [entry for entry in history(ran[name].folder) if "eval_ragged_pairs" in entry]
    assert [entries[0]["step"], entries[-1]["step"]] == [0, STEPS]
    assert {entry["eval_ragged_pairs"] for entry in entries} == {13}


@pytest.mark.parametrize("name", SPLIT)
def test_two_processes_judge_as_one(name: str, ran: dict[str, Ran], plain: dict[bool, Path]) -> None:
    """The last batches of seven prompts are not full, and the second process has one that is empty."""
    found, expected = (
        [entry for entry in history(each) if "eval_ragged_loss" in entry] for each in (ran[name].folder, plain[False])
    )
    assert [each["step"] for each in found] == [each["step"] for each in expected]
    for own, other in zip(found, expected, strict=True):
        for figure in ("loss", "accuracy"):
            assert own[f"eval_ragged_{figure}"] == pytest.approx(other[f"eval_ragged_{figure}"], abs=1e-4)
