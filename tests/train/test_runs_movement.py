"""A run that learns nothing exports nothing."""

from pathlib import Path
from typing import Any

import pytest
from train.rated_runs import attributes_run, trained
from train.tiny_runs import LORA, reward_run

from tureen_train.rewards import gate_fit
from tureen_train.rewards.ranking import RankingMethod
from tureen_train.rewards.run import train_reward
from tureen_train.runs.counted_trainer import Outcome
from tureen_train.runs.movement import StandstillError, check_movement


@pytest.mark.parametrize(
    "history",
    [
        [{"loss": 0.7, "grad_norm": 0.1}],
        [{"loss": 0.7, "grad_norm": 0.0}, {"loss": 0.6, "grad_norm": 0.1}],
        [{"loss": 0.7}, {"eval_heldout_accuracy": 1.0}, {"loss": 0.6}],
        [{"loss": 0.7}],
        [{"loss": 0.7, "learning_rate": 0.0}, {"loss": 0.7, "learning_rate": 0.1}],
    ],
)
def test_a_run_that_moved_passes(history: list[dict[str, float]]) -> None:
    check_movement(history)


def test_gradients_of_nothing_are_refused_unless_one_was_seen_between_the_entries() -> None:
    history = [{"loss": 0.7, "grad_norm": 0.0}, {"loss": 0.6, "grad_norm": 0.0}]
    with pytest.raises(StandstillError, match="every gradient was 0; nothing is exported"):
        check_movement(history)
    check_movement(history, moved=True)


def test_a_loss_that_stays_is_refused() -> None:
    with pytest.raises(StandstillError, match=r"the loss stayed at 0\.693"):
        check_movement([{"loss": 0.693, "grad_norm": 0.1}] * 2, moved=True)
    warm = {"loss": 0.693, "grad_norm": 0.1, "learning_rate": 0.1}
    with pytest.raises(StandstillError, match=r"the loss stayed at 0\.693"):
        check_movement([{**warm, "learning_rate": 0.0}, warm, warm], moved=True)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_run_without_gradients_leaves_no_artifact(
    base: Path, tmp_path: Path, lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains = RankingMethod.loss

    def still(*args: Any) -> Outcome:
        outcome = trains(*args)
        return Outcome(outcome.loss * 0, outcome.predictions, outcome.terms)

    monkeypatch.setattr(RankingMethod, "loss", still)
    run = reward_run(base, tmp_path, model={"lora": lora})
    with pytest.raises(StandstillError, match="every gradient was 0"):
        train_reward(run)
    assert not (Path(run.output) / "artifact").exists()


def test_a_gate_without_gradients_leaves_no_artifact(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = trained(attributes_run(base, tmp_path))
    gaps = gate_fit.compute_overall_gaps
    monkeypatch.setattr(gate_fit, "compute_overall_gaps", lambda *given: gaps(*given) * 0)
    run = reward_run(
        base,
        tmp_path,
        objective="overall",
        model={"start": str(start.folder)},
        reading={"max_length": 96},
        loss={"method": "gate", "width": 8, "depth": 1},
        cache=str(tmp_path / "cache"),
    )
    with pytest.raises(StandstillError, match="every gradient was 0"):
        train_reward(run)
    assert not (Path(run.output) / "artifact").exists()


def test_rounds_that_begin_with_the_same_loss_are_no_standstill() -> None:
    begins = [{"loss": 0.6931, "round": number} for number in (1, 2, 3)]
    check_movement(begins, moved=True)
    with pytest.raises(StandstillError, match=r"the loss stayed at 0\.6931"):
        check_movement([*begins, {"loss": 0.6931, "round": 3}], moved=True)
