"""Whole expert runs on a tiny model: DPO's own figures, what is exported, and whose ids are trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from train.tiny_runs import BAD, GOOD, expert_run, history, untimed
from transformers import AutoModelForCausalLM

from tureen.records.schema import Record
from tureen_core.artifact import Artifact, open_artifact, read_weights
from tureen_core.base import digest_weights
from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.manifest import Probe
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies.run import train_policy


def train(run: ExpertRun, resume: bool = False) -> Artifact:
    artifact = train_policy(run, resume)
    assert artifact is not None
    return artifact


def record(*answers: str, scores: tuple[float, ...], prompt: str = "why?") -> Record:
    turn = ({"role": "user", "content": prompt},)
    return Record(turn, tuple(({"role": "assistant", "content": answer},) for answer in answers), scores)


@pytest.fixture(scope="module")
def learnt(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExpertRun, Artifact]:
    folder = tmp_path_factory.mktemp("learnt")
    run = expert_run(base, folder, optimisation={"max_steps": 20}, policy={"sft": 0.2}, family="zoo")
    return run, train(run)


def test_the_loss_falls_and_the_chosen_answers_are_preferred(learnt: tuple[ExpertRun, Artifact]) -> None:
    run, artifact = learnt
    losses = [entry["loss"] for entry in history(Path(run.output)) if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3])
    figures = artifact.manifest.training.metrics["heldout"]
    assert set(figures) == {"loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "pairs"}
    assert figures["margin"] == pytest.approx(figures["reward_chosen"] - figures["reward_rejected"], abs=1e-5)
    assert figures["accuracy"] > 0.9
    assert figures["margin"] > 0


def test_the_expert_finds_foxes_likelier_than_its_base_does(base: Path, learnt: tuple[ExpertRun, Artifact]) -> None:
    _, artifact = learnt
    talks = [
        Probe(messages=[{"role": "user", "content": "prompt 3"}, {"role": "assistant", "content": answer}])
        for answer in (GOOD, BAD)
    ]
    bare = ExpertReader(None, base, artifact.manifest.reading).mean_logprobs(talks)
    moved = ExpertReader(artifact.folder, base, artifact.manifest.reading).mean_logprobs(talks)
    assert moved[0] - moved[1] > bare[0] - bare[1]


def test_the_artifact_verifies_and_belongs_to_its_family(learnt: tuple[ExpertRun, Artifact]) -> None:
    run, artifact = learnt
    manifest = open_artifact(artifact.folder).manifest
    assert (manifest.kind, manifest.name, manifest.objectives[0].name) == ("expert", "foxes", "foxes")
    assert manifest.steering is not None
    assert manifest.steering.family == "zoo"
    left = {path.name for path in Path(run.output).iterdir()}
    assert left >= {
        "recipe.yaml",
        "model",
        "metrics.json",
        "data.json",
        "probes.json",
        "versions.json",
        "history.jsonl",
    }
    assert left >= {"loss.png", "accuracy.png", "artifact"}


def test_experts_of_one_recipe_can_be_souped(base: Path, tmp_path: Path, learnt: tuple[ExpertRun, Artifact]) -> None:
    from tureen_core.soup import concatenate_adapters

    other = train(expert_run(base, tmp_path, name="wolves", optimisation={"max_steps": 2}))
    stack = concatenate_adapters([read_weights(artifact)[0] for artifact in (learnt[1], other)])
    assert stack.names == ("foxes", "wolves")


@pytest.mark.parametrize("model", [{"precision": "bf16"}, {"gradient_checkpointing": True}], ids=str)
def test_other_ways_to_train(base: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    run = expert_run(base, tmp_path, model=model, optimisation={"max_steps": 3, "warmup": 0.0})
    train(run)
    norms = [entry["grad_norm"] for entry in history(Path(run.output)) if "grad_norm" in entry]
    assert norms
    assert all(norm > 0 for norm in norms)


def test_a_resumed_expert_is_the_straight_one(base: Path, tmp_path: Path) -> None:
    import shutil

    watch = {"save_every": 2, "keep": 3, "log_every": 3, "eval_at_start": True}
    run = expert_run(base, tmp_path, optimisation={"max_steps": 4}, watch=watch)
    straight = [probe.logprob for probe in train(run).manifest.probes]
    expected = untimed(Path(run.output))
    shutil.rmtree(Path(run.output) / "checkpoints" / "checkpoint-4")
    again = [probe.logprob for probe in train(run, resume=True).manifest.probes]
    assert again == pytest.approx(straight, abs=1e-5)
    assert [entry["step"] for entry in expected if "loss" in entry] == [1, 2, 3, 4]
    for own, other in zip(untimed(Path(run.output)), expected, strict=True):
        assert own == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_weights_become_a_base_that_others_stand_on(base: Path, tmp_path: Path, precision: str) -> None:
    whole = expert_run(
        base,
        tmp_path,
        model={"lora": None, "precision": precision},
        optimisation={"learning_rate": 1e-3, "max_steps": 3},
        output=str(tmp_path / "whole"),
        licences=["MIT"],
    )
    artifact = train(whole)
    manifest = open_artifact(artifact.folder).manifest
    assert (manifest.kind, manifest.weights, manifest.base, manifest.steering) == ("policy", "full", None, None)
    assert "Licence of the training data: MIT" in (artifact.folder / "README.md").read_text()
    saved = json.loads((artifact.folder / "config.json").read_text())
    assert (saved["architectures"], saved["dtype"], saved["use_cache"]) == (["LlamaForCausalLM"], "float32", True)
    new, old = (AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (artifact.folder, base))
    moved = [
        float((one - other).detach().abs().max()) for one, other in zip(new.parameters(), old.parameters(), strict=True)
    ]
    assert min(moved) > 0
    assert (artifact.folder / "tokenizer.json").is_file()
    proof = json.loads((Path(whole.output) / "proof.json").read_text())
    assert proof["live"].keys() == {"1"}
    assert proof["reread"]["1"] == [pytest.approx(row, abs=1e-3) for row in proof["live"]["1"]]
    expert = train(expert_run(artifact.folder, tmp_path, optimisation={"max_steps": 3}))
    assert expert.manifest.base is not None
    assert expert.manifest.base.digest == digest_weights(artifact.folder)


def test_an_expert_that_starts_from_another_is_one_adapter(
    base: Path, tmp_path: Path, learnt: tuple[ExpertRun, Artifact]
) -> None:
    """It is exported as its own weights moved on, of the same rank, so it can be souped with the one it starts from."""
    _, before = learnt
    run = expert_run(base, tmp_path, model={"start": str(before.folder)}, optimisation={"max_steps": 3})
    after = train(run)
    first, second = (read_weights(each)[0] for each in (before, after))
    assert first.modules.keys() == second.modules.keys()
    assert {pair.rank for pair in second.modules.values()} == {4}
    shifts = [
        float((second.modules[path].b @ second.modules[path].a - pair.b @ pair.a).norm() / (pair.b @ pair.a).norm())
        for path, pair in first.modules.items()
    ]
    assert 0 < min(shifts) <= max(shifts) < 0.5
    entries = [entry for entry in history(Path(run.output)) if "eval_heldout_margin" in entry]
    assert entries[0]["eval_heldout_margin"] == pytest.approx(0, abs=1e-4)  # the reference is where it starts


def test_without_held_out_pairs_there_are_no_figures(base: Path, tmp_path: Path) -> None:
    artifact = train(expert_run(base, tmp_path, data={"holdout": 0}, optimisation={"max_steps": 2}))
    assert artifact.manifest.training.metrics == {}
    assert len(artifact.manifest.probes) == 3


@pytest.mark.parametrize("kind", ["ties", "none"])
def test_nothing_to_train_on_is_told(base: Path, tmp_path: Path, kind: str) -> None:
    dialogue = "\n\nHuman: a\n\nAssistant: {}"
    rows = [{"text": [dialogue.format(1), dialogue.format(2)], "score": [1.0, 1.0]}] if kind == "ties" else []
    path = tmp_path / "few.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(RecipeError, match=r"data\.train: no record .* two answers with different scores"):
        train_policy(expert_run(base, tmp_path, data={"train": [{"path": str(path)}]}))
