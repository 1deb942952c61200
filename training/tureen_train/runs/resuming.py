"""Train with one of the library's trainers, or go on from a checkpoint with the steps that are left."""

from typing import Any

from transformers import Trainer


def train_rest(trainer: Trainer, checkpoint: str | None) -> None:
    """Train to the last step.

    From a checkpoint of the last step nothing is left. The library alone would then take one step more, if
    ``max_steps`` ends within an epoch: it looks at the number only after a step.

    Args:
        checkpoint: where an earlier, broken run stopped; None begins anew.
    """
    run_epoch = trainer._run_epoch

    def run_rest(**arguments: Any) -> None:
        if trainer.state.global_step < trainer.state.max_steps:
            run_epoch(**arguments)

    trainer._run_epoch = run_rest
    trainer.train(resume_from_checkpoint=checkpoint)
