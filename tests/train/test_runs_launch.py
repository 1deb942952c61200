"""From a recipe to the trainer's arguments: every key arrives, and DeepSpeed's configuration is whole."""

from pathlib import Path
from typing import Any

import pytest
from train.tiny_runs import reward_run
from transformers import TrainingArguments

from tureen_train.config import RecipeError, RewardRun, Scale
from tureen_train.runs.launch import (
    can_resume,
    choose_packing,
    find_last_checkpoint,
    has_checkpoint,
    make_deepspeed_config,
    make_trainer_arguments,
)


@pytest.fixture(autouse=True)
def launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_train.runs.launch.count_processes", lambda: 1)


def run(base: Path, folder: Path, **changes: Any) -> RewardRun:
    return reward_run(base, folder, **changes)


def test_every_key_of_optimisation_arrives(base: Path, tmp_path: Path) -> None:
    optimisation = {
        "learning_rate": 3e-5,
        "epochs": 2.5,
        "max_steps": 11,
        "batch": 3,
        "accumulation": 5,
        "eval_batch": 7,
        "warmup": 0.25,
        "schedule": "linear",
        "weight_decay": 0.01,
        "max_grad_norm": 0.5,
        "seed": 13,
    }
    found = TrainingArguments(**make_trainer_arguments(run(base, tmp_path, optimisation=optimisation), evaluate=True))
    assert (found.learning_rate, found.num_train_epochs, found.max_steps) == (3e-5, 2.5, 11)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (3, 5)
    assert found.per_device_eval_batch_size == 7
    assert found.get_warmup_steps(100) == 25
    assert found.lr_scheduler_type.value == "linear"
    assert (found.weight_decay, found.max_grad_norm) == (0.01, 0.5)
    assert found.seed == found.data_seed == 13
    assert Path(found.output_dir) == tmp_path / "run" / "checkpoints"
    assert found.report_to == []


@pytest.mark.parametrize(
    ("watch", "evaluate", "expected"),
    [
        ({}, True, ("no", True, "no")),
        ({"eval_every": 4, "eval_at_start": False}, True, ("steps", False, "no")),
        ({"eval_every": 4}, False, ("no", False, "no")),
        ({"save_every": 9, "keep": 4}, True, ("no", True, "steps")),
    ],
)
def test_when_to_evaluate_and_save(
    base: Path, tmp_path: Path, watch: dict[str, Any], evaluate: bool, expected: tuple[str, bool, str]
) -> None:
    found = TrainingArguments(**make_trainer_arguments(run(base, tmp_path, watch=watch), evaluate))
    assert (found.eval_strategy.value, found.eval_on_start, found.save_strategy.value) == expected
    if expected[0] == "steps":
        assert found.eval_steps == 4
    if expected[2] == "steps":
        assert (found.save_steps, found.save_total_limit) == (9, 4)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precision_is_the_recipes_not_the_librarys(base: Path, tmp_path: Path, precision: str) -> None:
    found = TrainingArguments(
        **make_trainer_arguments(run(base, tmp_path, model={"precision": precision}), evaluate=False)
    )
    assert found.bf16 == (precision == "bf16")
    assert found.gradient_checkpointing is False


@pytest.mark.parametrize(("zero", "reentrant"), [(0, False), (2, False), (3, True)])
def test_zero_3_checkpoints_re_entrantly(base: Path, tmp_path: Path, zero: int, reentrant: bool) -> None:
    raw = make_trainer_arguments(
        run(base, tmp_path, scale={"zero": zero}, model={"gradient_checkpointing": True}), evaluate=False
    )
    assert raw["gradient_checkpointing"] is True
    assert raw["gradient_checkpointing_kwargs"] == {"use_reentrant": reentrant}


# --------------------------------------------------------------------------- DeepSpeed


def test_without_zero_there_is_no_deepspeed(base: Path, tmp_path: Path) -> None:
    assert make_trainer_arguments(run(base, tmp_path), evaluate=False)["deepspeed"] is None


def test_zero_without_a_launcher_says_how_to_launch_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tureen_train.runs.launch.count_processes", lambda: 0)
    make_trainer_arguments(run(base, tmp_path), evaluate=False)
    with pytest.raises(RecipeError, match="scale.zero needs a launcher: start it as torchrun"):
        make_trainer_arguments(run(base, tmp_path, scale={"zero": 1}), evaluate=False)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_the_batch_size_is_left_to_the_launcher(base: Path, tmp_path: Path, zero: int) -> None:
    """With ``train_batch_size: auto`` a plain torchrun dies under ZeRO-3 (transformers#28803)."""
    found = make_trainer_arguments(run(base, tmp_path, scale={"zero": zero}), evaluate=False)["deepspeed"]
    assert found["zero_optimization"]["stage"] == zero
    assert "train_batch_size" not in found
    assert found["train_micro_batch_size_per_gpu"] == found["gradient_accumulation_steps"] == "auto"


@pytest.mark.parametrize(("zero", "gathers"), [(1, False), (2, False), (3, True)])
def test_zero_3_gathers_its_weights_to_save_them(base: Path, tmp_path: Path, zero: Any, gathers: bool) -> None:
    stage = make_deepspeed_config(Scale(zero=zero), run(base, tmp_path))["zero_optimization"]
    assert stage.get("stage3_gather_16bit_weights_on_model_save", False) is gathers


@pytest.mark.parametrize(("zero", "parts"), [(2, {"offload_optimizer"}), (3, {"offload_optimizer", "offload_param"})])
def test_what_is_offloaded(base: Path, tmp_path: Path, zero: Any, parts: set[str]) -> None:
    stage = make_deepspeed_config(Scale(zero=zero, offload=True), run(base, tmp_path))["zero_optimization"]
    assert {key for key in stage if key.startswith("offload")} == parts
    assert all(stage[part]["device"] == "cpu" for part in parts)
    still = make_deepspeed_config(Scale(zero=zero), run(base, tmp_path))["zero_optimization"]
    assert not [key for key in still if key.startswith("offload")]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_deepspeeds_dtype_is_the_recipes(base: Path, tmp_path: Path, precision: str) -> None:
    found = make_deepspeed_config(Scale(zero=2), run(base, tmp_path, model={"precision": precision}))
    assert found["bf16"] == {"enabled": precision == "bf16"}


# --------------------------------------------------------------------------- packing


@pytest.mark.parametrize("packing", ["prompts", "texts", "off"])
def test_packing_is_the_recipes(base: Path, tmp_path: Path, packing: Any) -> None:
    assert choose_packing(run(base, tmp_path, scale={"packing": packing})) == packing


def test_a_loss_that_reads_padding_is_padded_and_it_is_said(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published = {"constraint": {"prior": "length_ratio"}, "read": "span", "span_padding": "published"}
    with caplog.at_level("INFO", logger="tureen.train"):
        assert choose_packing(run(base, tmp_path, loss={**published, "span_padding": "hold"})) == "prompts"
        assert not caplog.text
        assert choose_packing(run(base, tmp_path, loss=published)) == "off"
    assert "loss.span_padding: published reads the padding" in caplog.text


# --------------------------------------------------------------------------- resuming


def test_the_last_checkpoint_is_the_whole_one_with_the_highest_step(base: Path, tmp_path: Path) -> None:
    """A run that is killed while it saves leaves half a checkpoint."""
    one = run(base, tmp_path)
    for step, state in {200: "", 300: '{"global_'}.items():
        _save_state(one, step, state)
    _save_state(one, 400, "{}").unlink()
    assert not has_checkpoint(one)
    with pytest.raises(RecipeError, match="--resume: there is no whole checkpoint in"):
        find_last_checkpoint(one)
    for step in (5, 100, 20):
        _save_state(one, step, "{}")
    assert has_checkpoint(one)
    assert find_last_checkpoint(one).endswith("checkpoint-100")


def test_a_run_with_answers_or_a_whole_checkpoint_can_be_resumed(base: Path, tmp_path: Path) -> None:
    one = run(base, tmp_path)
    _save_state(one, 1, "")
    assert not can_resume(one)
    (Path(one.output) / "rounds" / "001").mkdir(parents=True)
    assert can_resume(one)


def _save_state(one: RewardRun, step: int, state: str) -> Path:
    path = Path(one.output) / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(state)
    return path
