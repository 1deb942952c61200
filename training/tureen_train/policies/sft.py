"""Supervised fine-tuning on the answers of a run's records, by TRL."""

import logging
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from trl import SFTConfig

from tureen_core.lora import Adapter
from tureen_train.config import SftPolicy
from tureen_train.policies.completion_trainer import CompletionTrainer, TokenCounter, find_row_packing_obstacle
from tureen_train.policies.completions import Completions, encode_completions
from tureen_train.policies.method import Task
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.trained import TrainerPolicy
from tureen_train.records.encoding_report import check_training_data
from tureen_train.runs.folder import update_account
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.runs.resuming import train_rest

log = logging.getLogger("tureen.train")


def train_sft(task: Task) -> TrainerPolicy:
    """Train on the answers of a run's records.

    Raises:
        RecipeError: there is no answer to train on, too many are left out, ``model.start`` does not fit, or there is
            nothing to resume.
        BadRecord: the base's chat template does not render a record.
    """
    run, data, policy = task.run, task.data, task.run.policy
    assert isinstance(policy, SftPolicy)
    checkpoint = find_last_checkpoint(run) if task.resume else None
    start = open_start(run, task.base)
    train = encode_completions(data.train, task.renderer, policy.answers, policy.too_long)
    check_training_data(train.report, run.data.most_dropped)
    encoded = {
        name: encode_completions(each, task.renderer, policy.answers, policy.too_long)
        for name, each in data.eval.items()
    }
    held = {name: each for name, each in encoded.items() if each.items}
    reports = {"training": train.report, **{name: each.report for name, each in held.items()}}
    update_account(task.folder, texts={name: each.counts for name, each in reports.items()})
    watch = GradientWatch()
    trainer = make_completion_trainer(task, policy, start, train, held)
    trainer.add_callback(watch)
    trainer.add_callback(TokenCounter(trainer))
    train_rest(trainer, checkpoint)
    return TrainerPolicy(trainer, {name: _evaluate(trainer, name) for name in held}, watch.moved)


def make_completion_trainer(
    task: Task, policy: SftPolicy, start: Adapter | None, train: Completions, held: Mapping[str, Completions]
) -> CompletionTrainer:
    """Open the policy of a run and make its trainer.

    Args:
        start: the adapter that the policy starts from.
        held: the held-out answers of each file.
    """
    run = task.run
    arguments: dict[str, Any] = make_trainer_arguments(run, evaluate=bool(held))
    # must exist before the model: they switch on ZeRO-3, which shards a model while it loads
    settings = SFTConfig(**arguments, max_length=None, eval_packing=False)
    model = open_policy(run, task.base, start)
    if policy.packing:
        obstacle = find_row_packing_obstacle(model, sharded=run.scale.zero == 3)
        if obstacle is not None:
            log.warning("policy.packing: texts are padded: %s", obstacle)
        else:
            settings.packing, settings.max_length = True, policy.max_length
    return CompletionTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(train.make_rows()),
        eval_dataset={name: Dataset.from_list(each.make_rows()) for name, each in held.items()} or None,
        processing_class=task.renderer.tokenizer,
        callbacks=[History(task.folder / "history.jsonl")],
    )


def _evaluate(trainer: CompletionTrainer, name: str) -> dict[str, float]:
    """Evaluate a held-out file at the end, and log its figures."""
    prefix = f"eval_{name}"
    found = trainer.evaluate(name, metric_key_prefix=prefix)
    return {figure: float(found[f"{prefix}_{figure}"]) for figure in ("loss", "entropy", "top1", "tokens")}
