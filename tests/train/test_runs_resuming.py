"""A run that goes on takes the steps that are left, and none from a checkpoint of its last step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from tureen_train.runs.resuming import train_rest


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": ((self.slope(x) - labels) ** 2).mean()}


class Counted(Trainer):  # type: ignore[misc]
    steps = 0

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.steps += 1
        loss: Tensor = super().training_step(*args, **kwargs)
        return loss


def make_trainer(folder: Path, most: int) -> Counted:
    """Four steps make an epoch."""
    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder),
        max_steps=most,
        per_device_train_batch_size=2,
        save_steps=1,
        save_total_limit=9,
        learning_rate=0.1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows: Any = [{"x": torch.tensor([float(at)]), "labels": torch.tensor([2.0 * at])} for at in range(8)]
    return Counted(Line(), arguments, train_dataset=rows)


@pytest.mark.parametrize("most", [2, 4, 6])
def test_a_run_that_goes_on_ends_with_the_steps_of_one_that_was_not_broken(most: int, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path, most)
    train_rest(whole, None)
    assert whole.steps == most
    for done in (most - 1, most):
        again = make_trainer(tmp_path, most)
        train_rest(again, str(tmp_path / f"checkpoint-{done}"))
        assert (again.steps, again.state.global_step) == (most - done, most)
        assert again.model.slope.weight.item() == pytest.approx(whole.model.slope.weight.item(), abs=1e-7)
