"""The proof: a saved model that is not the trained one is caught, and named."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from train.tiny_runs import expert_run, reward_run

from tureen_core.artifact import open_artifact
from tureen_train.policies.dpo import train_expert
from tureen_train.rewards.run import train_reward
from tureen_train.runs.expert_artifact import ExpertArtifact
from tureen_train.runs.proof import ProofError, compare, finish_run, prove_save
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
    assert train_expert(expert_run(base, folder)) is not None
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
    assert len(found["live"]) == len(json.loads((reward / "probes.json").read_text())) == 4
    assert found["reread"] == pytest.approx(found["live"], abs=1e-5)


def test_a_random_head_is_caught(reward: Path, saved: Any) -> None:
    torch.manual_seed(0)
    saved(reward, "score", torch.randn_like)
    with pytest.raises(ProofError, match=r"probe 0: trained .*, read again"):
        prove_save(reward, RewardArtifact())


def test_an_adapter_that_was_not_saved_is_caught(reward: Path, saved: Any) -> None:
    saved(reward, "lora_B", torch.zeros_like)
    with pytest.raises(ProofError, match="read again"):
        prove_save(reward, RewardArtifact())


def test_an_expert_that_reads_as_its_base_is_caught_whatever_the_tolerance(
    expert: Path, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove_save(expert, ExpertArtifact())
    saved(expert, "lora_B", torch.zeros_like)
    monkeypatch.setattr("tureen_train.runs.proof.LOOSE", {"fp32": 100.0})
    with pytest.raises(ProofError, match="reads as the bare base"):
        prove_save(expert, ExpertArtifact())


def test_an_expert_that_never_moved_may_read_as_its_base(expert: Path, saved: Any) -> None:
    found = json.loads((expert / "proof.json").read_text())
    assert found["live"] != found["bare"]
    saved(expert, "lora_B", torch.zeros_like)
    (expert / "proof.json").write_text(json.dumps({"live": found["bare"], "bare": found["bare"]}))
    prove_save(expert, ExpertArtifact())
    (expert / "proof.json").write_text(json.dumps(found))


def test_after_a_sharded_run_a_fresh_process_proves_and_exports(reward: Path) -> None:
    live = json.loads((reward / "proof.json").read_text())["live"]
    artifact = finish_run(reward, RewardArtifact(), live, sharded=True)
    assert artifact.manifest == open_artifact(reward / "artifact").manifest
    assert len(json.loads((reward / "proof.json").read_text())["reread"]) == len(live)


def test_what_the_fresh_process_finds_is_told_here(expert: Path) -> None:
    found = json.loads((expert / "proof.json").read_text())
    live = [found["live"][0], 50.0, *found["live"][2:]]
    with pytest.raises(ProofError, match="probe 1: trained 50"):
        finish_run(expert, ExpertArtifact(), live, found["bare"], sharded=True)


# --------------------------------------------------------------------------- tolerance


@pytest.mark.parametrize(
    ("live", "again", "precision"),
    [
        ([0.0, 1.0], [0.0009, 1.0], "fp32"),
        ([0.0, 100.0], [0.09, 100.0], "fp32"),
        ([0.0, 1.0], [0.19, 0.81], "bf16"),
        ([-5.0, 5.0], [-3.1, 5.0], "bf16"),
    ],
)
def test_what_differs_within_the_precision_passes(live: list[float], again: list[float], precision: str) -> None:
    compare(live, again, precision)


@pytest.mark.parametrize(
    ("live", "again", "precision", "probe"),
    [
        ([0.0, 1.0], [0.0, 1.0011], "fp32", 1),
        ([0.0, 1.0], [0.21, 1.0], "bf16", 0),
        ([0.0, 1.0], [0.0, math.nan], "bf16", 1),
        ([math.nan, 1.0], [0.0, 1.0], "bf16", 0),
        ([0.0, 1.0], [math.inf, 1.0], "bf16", 0),
    ],
)
def test_what_differs_more_is_refused_by_its_number(
    live: list[float], again: list[float], precision: str, probe: int
) -> None:
    with pytest.raises(ProofError, match=f"probe {probe}: "):
        compare(live, again, precision)


def test_probes_that_were_not_all_read_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([1.0, 2.0], [1.0], "fp32")
