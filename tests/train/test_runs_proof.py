"""The proof: a saved model that is not the trained one is caught, and named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from train.tiny_runs import expert_run, reward_run

from tureen_core.artifact import open_artifact
from tureen_train.policies.run import train_policy
from tureen_train.rewards.run import train_reward
from tureen_train.runs.expert_artifact import ExpertArtifact
from tureen_train.runs.proof import ProofError, finish_run, prove_save, read_live
from tureen_train.runs.reward_artifact import RewardArtifact

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def reward(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("reward")
    assert train_reward(reward_run(base, folder)) is not None
    return folder / "run"


@pytest.fixture(scope="module")
def expert(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expert")
    assert train_policy(expert_run(base, folder)) is not None
    return folder / "run"


@pytest.fixture
def saved(request: pytest.FixtureRequest) -> Any:
    """Changes tensors of a run's saved adapter for one test."""
    undone: list[tuple[Path, dict[str, torch.Tensor]]] = []

    def change(folder: Path, word: str, to: Any) -> None:
        path = folder / "model" / WEIGHTS
        tensors = load_file(path)
        undone.append((path, dict(tensors)))
        hit = [name for name in tensors if word in name]
        assert hit
        for name in hit:
            tensors[name] = to(tensors[name]).contiguous()
        save_file(tensors, path, metadata={"format": "pt"})

    yield change
    for path, tensors in reversed(undone):
        save_file(tensors, path, metadata={"format": "pt"})


def test_an_honest_save_is_proven_and_the_numbers_are_kept(reward: Path) -> None:
    prove_save(reward, RewardArtifact())
    found = json.loads((reward / "proof.json").read_text())
    assert found["live"].keys() == found["reread"].keys() == {"0", "1", "8"}
    assert len(found["live"]["1"]) == len(json.loads((reward / "probes.json").read_text())) == 4
    for weight, rows in found["live"].items():
        assert found["reread"][weight] == [pytest.approx(row, abs=1e-5) for row in rows]


def test_a_random_head_is_caught(reward: Path, saved: Any) -> None:
    torch.manual_seed(0)
    saved(reward, "score", torch.randn_like)
    with pytest.raises(ProofError, match=r"probe 0: trained .*, read again"):
        prove_save(reward, RewardArtifact())


def test_a_permuted_head_is_caught(reward: Path, saved: Any) -> None:
    saved(reward, "score", lambda head: head.flip(1))
    with pytest.raises(ProofError, match="read again"):
        prove_save(reward, RewardArtifact())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adapter_that_was_not_saved_is_caught_in_each_precision(
    precision: str, reward: Path, expert: Path, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tureen_train.runs.proof.choose_dtype", lambda _: {"fp32": "float32", "bf16": "bfloat16"}[precision]
    )
    for folder, kind in ((reward, RewardArtifact()), (expert, ExpertArtifact())):
        prove_save(folder, kind)
        saved(folder, "lora_B", torch.zeros_like)
        with pytest.raises(ProofError, match="adapter at 8 times|read again"):
            prove_save(folder, kind)


@pytest.mark.long
def test_after_a_sharded_run_a_fresh_process_proves_and_exports(reward: Path) -> None:
    live = read_live(reward)
    artifact = finish_run(reward, RewardArtifact(), live, sharded=True)
    assert artifact.manifest == open_artifact(reward / "artifact").manifest
    assert len(json.loads((reward / "proof.json").read_text())["reread"]["1"]) == len(live[1.0])


def test_what_the_fresh_process_finds_is_told_here(expert: Path) -> None:
    live = read_live(expert)
    wrong = {**live, 1.0: [live[1.0][0], [50.0], *live[1.0][2:]]}
    with pytest.raises(ProofError, match="probe 1: trained 50"):
        finish_run(expert, ExpertArtifact(), wrong, sharded=True)
