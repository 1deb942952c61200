"""Rounds and groups by two processes: the answers, rewards and weights of one, and an end for both where one fails."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from train.launching import MARKS
from train.ranks import Ranks, run_ranks
from train.test_policies_on_trl import group_run
from train.tiny_ppo import FUNCTION
from train.tiny_ric import ric_run
from train.tiny_rounds import rounds_run

from tureen_train.config import ExpertRun

pytestmark = MARKS

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "RAFT, DDP": ("rejection", {}),
    "RiC, DDP": ("ric", {}),
    "iterative DPO, ZeRO-2": ("iterative-dpo", {"zero": 2}),
}


def write_recipe(run: ExpertRun) -> Path:
    path = Path(run.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return path


def rounds_of(base: Path, folder: Path, method: str, batch: int, zero: int = 0) -> Path:
    """Twelve prompts, so that no batch of an epoch is filled up."""
    folder.mkdir()
    optimisation = {"learning_rate": 2e-3, "batch": batch}
    if method == "ric":
        return write_recipe(ric_run(base, folder, online={"keep": "all"}, optimisation=optimisation))
    run = rounds_run(
        base,
        folder,
        method,
        sampling={"count": 3, "batch": 12, "max_tokens": 6},
        policy={"select": {"keep": "best_and_worst"} if method == "iterative-dpo" else {"keep": "all"}},
        optimisation=optimisation,
        scale={"zero": zero},
    )
    return write_recipe(run)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_answers(path: Path) -> list[dict[str, Any]]:
    return [answer for line in read_lines(path) for answer in line["answers"]]


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of runs by one process, by method."""
    found = {}
    for method, _ in WAYS.values():
        recipe = rounds_of(base, tmp_path_factory.mktemp("plain") / "one", method, 4)
        run_ranks(recipe, 1)
        found[method] = recipe.with_suffix("")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_write_and_learn_what_one_does(
    way: str, base: Path, plain: dict[str, Path], tmp_path: Path
) -> None:
    method, scale = WAYS[way]
    recipe = rounds_of(base, tmp_path / "two", method, 2, **scale)
    run_ranks(recipe, 2)
    folder, alone = recipe.with_suffix(""), plain[method]
    for number in ("001", "002"):
        for name in ("prompts", "rewards", "kept"):
            path = f"rounds/{number}/{name}.jsonl"
            assert (folder / path).read_text() == (alone / path).read_text(), path
        written, expected = (read_answers(each / f"rounds/{number}/samples.jsonl") for each in (folder, alone))
        for one, other in zip(written, expected, strict=True):
            assert (one.pop("ids"), one.pop("text")) == (other.pop("ids"), other.pop("text"))
            assert one == pytest.approx(other, abs=1e-4)
        own, theirs = (load_file(each / f"rounds/{number}/model/adapter_model.safetensors") for each in (folder, alone))
        for name, weight in theirs.items():
            assert torch.allclose(own[name], weight, atol=2e-4), (number, name)
    own, theirs = (json.loads((each / "account.json").read_text())["rewards"] for each in (folder, alone))
    assert own == theirs


def run_groups(base: Path, folder: Path, zero: int) -> Path:
    """GRPO by two processes."""
    folder.mkdir()
    run = group_run(base, folder, "grpo", optimisation={"batch": 2}, sampling={"count": 4}, scale={"zero": zero})
    run_ranks(write_recipe(run), 2)
    return Path(run.output)


@pytest.fixture(scope="module")
def grouped(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of GRPO by two processes with DDP."""
    return run_groups(base, tmp_path_factory.mktemp("grouped") / "ddp", 0)


def test_groups_under_zero_3_are_those_of_whole_weights(base: Path, grouped: Path, tmp_path: Path) -> None:
    """Each process draws other answers, so one process has others; two of them draw the same in every way."""
    folder = run_groups(base, tmp_path / "sharded", 3)
    for name in ("samples.jsonl", "held_answers.jsonl"):
        assert read_lines(folder / name) == read_lines(grouped / name)
    own, theirs = (load_file(each / "model/adapter_model.safetensors") for each in (folder, grouped))
    for name, weight in theirs.items():
        assert torch.allclose(own[name], weight, atol=2e-4), name


def test_answers_of_all_ranks_are_rewarded_noted_and_counted(grouped: Path) -> None:
    written = 2 * 2 * 2 * 4  # steps, processes, prompts, answers
    lines = read_lines(grouped / "samples.jsonl")
    counted = json.loads((grouped / "account.json").read_text())["rewards"]["answers"]
    held = len(read_lines(grouped / "held_answers.jsonl"))
    assert (len(lines), counted) == (written, written + 2 * held)  # held-out answers are before and after
    assert len({line["prompt"] for line in lines}) == written / 4
    logged = [entry["reward"] for entry in read_lines(grouped / "history.jsonl") if "reward" in entry]
    for step, reward in enumerate(logged):
        totals = [each["total"] for each in lines if each["step"] == step]
        assert reward == pytest.approx(sum(totals) / len(totals))


@pytest.mark.parametrize("method", ["grpo", "rejection"])
def test_failed_rewards_end_all_processes(method: str, base: Path, tmp_path: Path) -> None:
    rewards = [{**FUNCTION, "function": "train.tiny_ppo:fail_always"}]
    if method == "grpo":
        run = group_run(base, tmp_path, method, rewards=rewards, optimisation={"batch": 2}, sampling={"count": 4})
    else:
        run = rounds_run(base, tmp_path, method, rewards=rewards)
    ranks = Ranks(write_recipe(run), 2)
    assert ranks.end() == [1, 1], ranks.said
    assert "answers of a batch have no reward: letters: train.tiny_ppo:fail_always raised OSError" in ranks.said
    assert "process 0 of the run failed: RewardError" in ranks.said
