"""Fine-tuning and DPO by several processes end with what one process makes: DDP, ZeRO-2 and ZeRO-3, also resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from train.launching import MARKS, losses
from train.ranks import run_ranks
from train.tiny_runs import expert_recipe, records

from tureen_core.artifact import open_artifact
from tureen_train.config import resolve_recipe
from tureen_train.policies.run import train_policy

pytestmark = MARKS

STEPS = 4
HALF = {"batch": 2}  # of the plain run's pairs or answers, on each of two processes
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {
        "method": "dpo",
        "sft": 0.3,
        "label_smoothing": 0.1,
        "constraint": {"prior": "length_ratio", "beta1": 2.0},
        "max_length": 64,
    },
    "sft": {"method": "sft", "answers": "all", "max_length": 64},
}
WAYS: dict[str, dict[str, Any]] = {
    "DDP": {"optimisation": HALF},
    "stage 2": {
        "scale": {"zero": 2},
        "optimisation": {"batch": 1, "accumulation": 2},
        "watch": {"save_every": 2},
    },
    "stage 3, whole weights, checkpointing": {
        "scale": {"zero": 3},
        "optimisation": HALF,
        "model": {"lora": None, "gradient_checkpointing": True},
        "watch": {"save_every": 2},
    },
    "stage 3": {"scale": {"zero": 3}, "optimisation": HALF},
}
CASES = {(method, way): changes for method in METHODS for way, changes in WAYS.items()}
SAVED = [name for name, changes in CASES.items() if "watch" in changes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def start(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An expert to go on from, so that the reference is not the bare base."""
    return str(tiny.expert(tmp_path_factory.mktemp("start") / "general", base, "general", seed=4).folder)


def recipe(base: Path, folder: Path, start: str, method: str, **changes: Any) -> dict[str, Any]:
    """Ragged records to train on and to be judged by: their last batches are uneven on two processes."""
    for name in ("train", "ragged"):
        (folder / name).mkdir(exist_ok=True)
    train, ragged = records(folder / "train", count=16, widest=4), records(folder / "ragged", count=7, first=96)
    raw = expert_recipe(base, folder, **changes)
    raw["data"] = {
        "train": [{"path": str(train)}],
        "eval": {"ragged": {"path": str(ragged)}},
        "eval_whole": True,
        "holdout": 0,
    }
    raw["policy"] = METHODS[method]
    raw["optimisation"] = {**raw["optimisation"], "learning_rate": 1e-3, "max_steps": STEPS, "eval_batch": 2}
    if raw["model"]["lora"] is not None:
        raw["model"]["start"] = start
    return raw


@pytest.fixture(scope="module")
def ran(base: Path, folder: Path, start: str) -> dict[Any, Path]:
    """The folders of the runs by two processes, by method and way."""
    return {name: end_well(write(base, folder, start, name)) for name in CASES}


@pytest.fixture(scope="module")
def resumed(ran: dict[Any, Path]) -> dict[Any, Path]:
    """Those that saved at the half, as if they had ended there, gone on with."""
    for name in SAVED:
        shutil.rmtree(ran[name] / "checkpoints" / f"checkpoint-{STEPS}")
        shutil.copy(ran[name] / "history.jsonl", ran[name] / "straight.jsonl")
    return {name: end_well(ran[name].with_suffix(".yaml"), "--resume") for name in SAVED}


def end_well(recipe: Path, *flags: str) -> Path:
    run_ranks(recipe, 2, *flags)
    return recipe.with_suffix("")


def write(base: Path, folder: Path, start: str, name: tuple[str, str]) -> Path:
    path = folder / f"run-{list(CASES).index(name)}.yaml"
    raw = recipe(base, folder, start, name[0], **CASES[name])
    path.write_text(yaml.safe_dump({**raw, "output": str(path.with_suffix(""))}))
    return path


@pytest.fixture(scope="module")
def plain(base: Path, folder: Path, start: str) -> dict[tuple[str, bool], Path]:
    """The runs' folders in this process, by method, with whole weights (true) and with LoRA."""
    found = {}
    for method in METHODS:
        for whole in (False, True):
            changes: dict[str, Any] = {"model": {"lora": None}} if whole else {}
            output = str(folder / f"plain-{method}-{whole}")
            run = resolve_recipe({**recipe(base, folder, start, method, **changes), "output": output})
            assert run.kind == "expert"
            assert train_policy(run) is not None
            found[method, whole] = Path(run.output)
    return found


def find_plain(name: tuple[str, str], plain: dict[tuple[str, bool], Path]) -> Path:
    return plain[name[0], CASES[name].get("model", {}).get("lora", 0) is None]


def logprobs(folder: Path) -> list[float | None]:
    return [probe.logprob for probe in open_artifact(folder / "artifact").manifest.probes]


@pytest.mark.parametrize("name", CASES, ids=" by ".join)
def test_it_ends_with_the_plain_runs_artifact(
    name: tuple[str, str], ran: dict[Any, Path], plain: dict[tuple[str, bool], Path]
) -> None:
    assert logprobs(ran[name]) == pytest.approx(logprobs(find_plain(name, plain)), abs=1e-3)


@pytest.mark.parametrize("name", CASES, ids=" by ".join)
def test_it_logs_the_losses_of_one_process(
    name: tuple[str, str], ran: dict[Any, Path], plain: dict[tuple[str, bool], Path]
) -> None:
    """Each step's loss is the mean over the pairs or tokens of both, however many each has."""
    found, expected = (losses(each / "history.jsonl") for each in (ran[name], find_plain(name, plain)))
    assert [step for step, _ in found] == list(range(1, STEPS + 1))
    for (_, own), (_, other) in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("name", CASES, ids=" by ".join)
def test_uneven_files_are_judged_once_whatever_the_processes(
    name: tuple[str, str], ran: dict[Any, Path], plain: dict[tuple[str, bool], Path]
) -> None:
    found, expected = (
        json.loads((each / "metrics.json").read_text())["ragged"] for each in (ran[name], find_plain(name, plain))
    )
    count = "pairs" if name[0] == "dpo" else "tokens"
    assert found.pop(count) == expected.pop(count) > 0
    assert found == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", SAVED, ids=" by ".join)
def test_a_resumed_run_is_the_straight_one(
    name: tuple[str, str], ran: dict[Any, Path], resumed: dict[Any, Path]
) -> None:
    """It reads the reference of its start again, although its weights have moved since."""
    straight, again = (losses(ran[name] / file) for file in ("straight.jsonl", "history.jsonl"))
    assert [step for step, _ in again] == [step for step, _ in straight] == list(range(1, STEPS + 1))
    for (_, own), (_, other) in zip(again, straight, strict=True):
        assert own == pytest.approx(other, abs=1e-5)
