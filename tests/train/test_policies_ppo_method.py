"""PPO from recipe to artifact: the reward rises, what is left out is counted, a broken run goes on as if it had not."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from train import tiny_ppo
from train.judge_server import judging
from train.tiny_ppo import Meter, ppo_run
from train.tiny_runs import history, records

from tureen_core.artifact import open_artifact
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies.rollouts.valuing import RewardError
from tureen_train.policies.run import train_policy
from tureen_train.runs.folder import claim_folder

METER = "train.tiny_ppo.METER"


@pytest.fixture(autouse=True)
def _no_state_is_left() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METER, Meter())


def by(name: str) -> list[dict[str, str]]:
    return [{"source": "function", "function": f"train.tiny_ppo:{name}", "name": "letters"}]


def entries(folder: Path, key: str) -> list[float]:
    return [entry[key] for entry in history(folder) if key in entry]


def trained(run: ExpertRun, resume: bool = False) -> Path:
    assert train_policy(run, resume) is not None
    return Path(run.output)


def test_ppo_raises_a_simple_reward(base: Path, tmp_path: Path) -> None:
    """The share of the letters a to m, from a fixed seed. An untrained policy has about a sixth of them."""
    run = ppo_run(
        base,
        tmp_path,
        policy={"steps": 16, "prompts": 8, "epochs": 2, "kl": 0.005, "kl_control": "fixed"},
        sampling={"count": 8, "max_tokens": 6},
        optimisation={"learning_rate": 1.5e-2, "batch": 64, "schedule": "constant"},
        watch={"eval_at_start": True, "log_every": 5},
        data={"eval_limit": 8},
    )
    folder = trained(run)
    rewards = entries(folder, "reward")
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-3:]) / 3 > 0.45
    held = entries(folder, "eval_heldout_reward")
    assert held[-1] > held[0] + 0.15
    assert json.loads((folder / "metrics.json").read_text())["heldout"]["reward_after"] == held[-1]
    assert open_artifact(folder / "artifact").manifest.kind == "expert"


# --------------------------------------------------------------------------- going on


def files_of(folder: Path) -> dict[str, Any]:
    """What a run leaves that does not depend on the time it took."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("**/*.jsonl"))
        if path.name != "history.jsonl"
    }
    found |= {name: (folder / name).read_bytes() for name in ("metrics.json", "proof.json", "recipe.yaml")}
    found["history"] = [{key: entry[key] for key in entry if key != "train_runtime"} for entry in history(folder)]
    found["account"] = json.loads((folder / "account.json").read_text())
    found["weights"] = {
        name: each.tolist() for name, each in load_file(folder / "model/adapter_model.safetensors").items()
    }
    for name in ("proof.json", "recipe.yaml"):
        found[name] = found[name].replace(str(folder).encode(), b"").split(b'"process"')[0]
    return found


def resumable(base: Path, folder: Path) -> ExpertRun:
    folder.mkdir()
    return ppo_run(
        base,
        folder,
        policy={"steps": 4, "minibatches": 2, "scale_scores": True, "centre_scores": True, "kl_target": 0.5},
        rewards=by("meter"),
        optimisation={"schedule": "linear"},
        watch={"save_every": 2, "eval_every": 2, "eval_at_start": True, "keep": 1},
        data={"train": [{"path": str(folder.parent / "records.json")}], "eval_limit": 3},
    )


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Meter]:
    """A run that nothing broke, with its meter."""
    parent = tmp_path_factory.mktemp("straight")
    records(parent)
    with pytest.MonkeyPatch.context() as patch:
        made = Meter()
        patch.setattr(METER, made)
        folder = trained(resumable(base, parent / "straight"))
    return folder, made


def break_run(run: ExpertRun, breaks_at: int) -> None:
    tiny_ppo.METER.breaks_at = breaks_at
    with pytest.raises(KeyboardInterrupt):
        train_policy(run)
    tiny_ppo.METER.breaks_at = math.inf
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("breaks_at", [0, 1, 3, 4, 6])
@pytest.mark.usefixtures("fresh")
def test_a_broken_run_goes_on_to_the_same_files(breaks_at: int, straight: tuple[Path, Meter], base: Path) -> None:
    """Broken while it rewards: at the start, in step 1, after the checkpoint of step 2 and of step 4."""
    folder, alone = straight
    run = resumable(base, folder.parents[1] / f"broken-{breaks_at}")
    break_run(run, breaks_at)
    assert files_of(trained(run, resume=True)) == files_of(folder)
    assert tiny_ppo.METER.seen == alone.seen  # nothing was rewarded twice


@pytest.mark.usefixtures("fresh")
def test_answers_on_disk_are_neither_mixed_with_another_recipe_s_nor_replaced(base: Path, tmp_path: Path) -> None:
    records(tmp_path)
    run = resumable(base, tmp_path / "run")
    break_run(run, 1)
    other = run.model_copy(update={"sampling": run.sampling.model_copy(update={"temperature": 0.7})})
    with pytest.raises(RecipeError, match=r"was begun with another recipe \(not the same: sampling\)"):
        train_policy(other, resume=True)
    folder = Path(run.output)
    with pytest.raises(RecipeError, match="holds the rollouts of another run: go on with --resume"):
        claim_folder(folder, resume=False, overwrite=False)
    claim_folder(folder, resume=False, overwrite=True)
    assert not (folder / "rollouts").exists()


# --------------------------------------------------------------------------- what is left out, and settings


def test_answers_without_a_reward_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    folder = trained(ppo_run(base, tmp_path, rewards=by("skip_every_other")))
    assert entries(folder, "without_reward") == [4, 4]
    assert entries(folder, "reward")[:2] == [1.0, 1.0]
    assert json.loads((folder / "account.json").read_text())["answers"]["without_reward"] == 8


def test_a_run_whose_rewards_all_fail_ends(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="8 of 8 answers of a batch have no reward: .*no disk"):
        train_policy(ppo_run(base, tmp_path, rewards=by("fail_always")))


def test_unfinished_answers_get_the_reward_that_the_recipe_names(base: Path, tmp_path: Path) -> None:
    """With two tokens, hardly any answer of a random model ends."""
    folder = trained(ppo_run(base, tmp_path, policy={"unfinished_reward": -3.0}, sampling={"max_tokens": 2}))
    shares = entries(folder, "unfinished")
    assert 1.0 in shares
    for share, score, reward in zip(shares, entries(folder, "score"), entries(folder, "reward"), strict=False):
        assert reward >= 0
        assert (score == -3.0) == (share == 1.0)


def test_passes_end_when_the_policy_moved_too_far(base: Path, tmp_path: Path) -> None:
    far = {"epochs": 4, "stop_kl": 1e-9}
    folder = trained(ppo_run(base, tmp_path, policy=far, optimisation={"learning_rate": 0.05}))
    assert min(entries(folder, "passes")) < 4
    (tmp_path / "free").mkdir()
    free = trained(ppo_run(base, tmp_path / "free", policy={"epochs": 4}, optimisation={"learning_rate": 0.05}))
    assert entries(free, "passes") == [4, 4]


def test_batches_beyond_the_limit_are_counted(base: Path, tmp_path: Path) -> None:
    """After the first pass with a huge rate, ratios are far beyond the limit."""
    wild = {"epochs": 3, "ratio_limit": 1.01}
    folder = trained(ppo_run(base, tmp_path, policy=wild, optimisation={"learning_rate": 0.5, "max_grad_norm": 100.0}))
    skipped = entries(folder, "skipped_batches")
    assert sum(skipped) > 0
    assert json.loads((folder / "account.json").read_text())["answers"]["skipped_batches"] == sum(skipped)


def test_a_judge_rewards_the_answers_of_a_step_and_no_single_ones(base: Path, tmp_path: Path) -> None:
    with judging() as server:
        source = {"source": "judge", "url": server.url, "model": "m", "criterion": "pref2A"}
        run = ppo_run(
            base,
            tmp_path,
            policy={"steps": 2, "prompts": 4},
            rewards=[source],
            sampling={"count": 3, "max_tokens": 4},
            watch={"eval_at_start": True},
            data={"eval_limit": 2},
        )
        folder = trained(run)
    assert len(entries(folder, "reward")) == 2
    assert entries(folder, "reward") == [0.5, 0.5]  # shares of wins
    assert not [key for entry in history(folder) for key in entry if key.startswith("eval_")]
    figures = json.loads((folder / "metrics.json").read_text())["heldout"]
    assert figures["reward_before"] == figures["reward_after"] == 0.5  # the one against the other
    assert (folder / "judgements.jsonl").is_file()
