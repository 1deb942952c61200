"""A run is killed by SIGKILL while it writes, learns and saves, and ``--resume`` ends with the same files."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from train.ranks import FORKS, Ranks, die_when_trained, run_ranks
from train.test_policies_ppo_method import files_of
from train.test_policies_training_rounds import files_of as rounds_of
from train.tiny_ppo import ppo_run
from train.tiny_rounds import rounds_run
from train.tiny_runs import records

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def ppo_recipe(base: Path, folder: Path) -> Path:
    folder.mkdir()
    records(folder.parent)
    run = ppo_run(
        base,
        folder,
        policy={"steps": 6, "minibatches": 2, "scale_scores": True},
        sampling={"batch": 2},
        watch={"save_every": 2, "eval_at_start": True, "keep": 1},
        data={"train": [{"path": str(folder.parent / "records.json")}], "eval_limit": 3},
    )
    return write(run.model_dump(mode="json"))


def write(raw: dict[str, object]) -> Path:
    path = Path(str(raw["output"])).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(raw))
    return path


def some(folder: Path, pattern: str) -> Callable[[], bool]:
    """Whether there is such a file with something in it, or such a folder."""
    return lambda: any(path.is_dir() or path.stat().st_size for path in folder.glob(pattern))


def kill_and_go_on(recipe: Path, states: list[str]) -> Path:
    """Kill a run when each of these states is reached, one after the other, and let it end. Returns its folder."""
    folder = recipe.with_suffix("")
    flags: list[str] = []
    for state in states:
        assert not some(folder, state)(), f"{state} is there already"
        Ranks(recipe, 1, *flags).kill_when(some(folder, state))
        flags = ["--resume"]
    run_ranks(recipe, 1, *flags)
    return folder


def test_ppo_that_is_killed_ends_with_the_same_files(base: Path, tmp_path: Path) -> None:
    alone = ppo_recipe(base, tmp_path / "alone")
    run_ranks(alone, 1)
    states = [
        "rollouts/before/heldout/samples.jsonl",
        "rollouts/step-00002/samples.jsonl",
        "checkpoints/part-2",  # which is being written
        "rollouts/step-00003/rewards.jsonl",
        "checkpoints/checkpoint-4",
        "rollouts/step-00006/rewards.jsonl",
        "model/adapter_model.safetensors",
    ]
    folder = kill_and_go_on(ppo_recipe(base, tmp_path / "killed"), states)
    assert files_of(folder) == files_of(alone.with_suffix(""))


@pytest.mark.parametrize("method", ["rejection", "iterative-dpo"])
def test_a_round_that_is_killed_between_its_last_step_and_its_model_ends_with_the_same_files(
    method: str, base: Path, tmp_path: Path
) -> None:
    """No step is left then. The log is due at other steps than the checkpoints."""
    recipes = []
    for name in ("alone", "killed"):
        (tmp_path / name).mkdir()
        run = rounds_run(base, tmp_path / name, method, watch={"save_every": 2, "log_every": 5})
        recipes.append(write(run.model_dump(mode="json")))
    alone, killed = recipes
    run_ranks(alone, 1)
    process = FORKS.Process(target=die_when_trained, args=(str(killed), str(killed.with_suffix(".log"))), daemon=True)
    process.start()
    process.join(600)
    folder = killed.with_suffix("")
    assert process.exitcode == -signal.SIGKILL
    assert list((folder / "rounds/001/training/checkpoints").iterdir())
    assert not (folder / "rounds/001/model").exists()
    run_ranks(killed, 1, "--resume")
    assert rounds_of(folder) == rounds_of(alone.with_suffix(""))
