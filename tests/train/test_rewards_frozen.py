"""Frozen runs: the model they open, the head they fit, and the log they keep."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from train.rated_runs import attributes_run, trained
from train.tiny_runs import LORA, history, reward_run

from tureen_core.artifact import read_head_tensors
from tureen_train.config import RecipeError
from tureen_train.rewards.frozen import find_head, flatten_metrics, open_frozen_model
from tureen_train.rewards.run import train_reward
from tureen_train.runs.history import Journal


def test_a_journal_is_a_line_an_entry_and_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("{}\n")
    journal = Journal(tmp_path / "history.jsonl")
    journal.log({"step": 0, **flatten_metrics({"file": {"r2": float("nan")}})})
    journal.log({"step": 1, "loss": 0.5})
    assert history(tmp_path) == [{"step": 0, "eval_file_r2": None}, {"step": 1, "loss": 0.5}]
    assert len(journal.entries) == 2


def test_nothing_of_an_opened_model_is_trained(base: Path, tmp_path: Path) -> None:
    model = open_frozen_model(attributes_run(base, tmp_path), base, None)
    assert isinstance(model, PeftModel)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    head = find_head(model.get_base_model())
    assert head.weight.shape == (3, 32)
    assert head is model.base_model.model.score.modules_to_save["default"]


def test_the_head_that_is_fitted_is_the_head_that_is_saved(base: Path, tmp_path: Path) -> None:
    model = open_frozen_model(attributes_run(base, tmp_path, model={"lora": None}), base, None)
    find_head(model).weight.fill_(0.5)
    model.save_pretrained(tmp_path / "saved")
    assert read_head_tensors(tmp_path / "saved")["score.weight"].tolist() == torch.full((3, 32), 0.5).tolist()
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["architectures"] == ["RewardLlamaForCausalLM"]


def test_a_full_start_with_another_head_gives_its_backbone(base: Path, tmp_path: Path) -> None:
    """As published: 19 attributes on a Bradley-Terry model of one row."""
    ranked = reward_run(base, tmp_path, model={"lora": None}, reading={"max_length": 96}, output=str(tmp_path / "bt"))
    start = trained(ranked)
    run = attributes_run(base, tmp_path, model={"lora": None, "start": str(start.folder)})
    model = open_frozen_model(run, base, start)
    moved = model.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    plain = open_frozen_model(attributes_run(base, tmp_path, model={"lora": None}), base, None)
    assert not torch.equal(moved, plain.state_dict()["model.layers.0.self_attn.q_proj.weight"])
    assert find_head(model).weight.shape == (3, 32)
    assert trained(run).manifest.objectives[2].column == 2


def test_a_launcher_of_several_processes_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a frozen backbone runs in one process"):
        train_reward(attributes_run(base, tmp_path, model={"lora": LORA}))
