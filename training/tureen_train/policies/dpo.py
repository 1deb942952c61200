"""DPO on the preference pairs of a run's records."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from tureen_core.lora import Adapter
from tureen_train.config import DpoPolicy
from tureen_train.networks.packing import switch_to_packed
from tureen_train.policies.method import Task
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.preference_trainer import REFERENCES, PreferenceLearner, PreferenceTrainer
from tureen_train.policies.preferences import Preferences, encode_preferences, encode_training_pairs
from tureen_train.policies.trained import TrainerPolicy
from tureen_train.records.encoding_report import check_training_data
from tureen_train.runs.folder import find_cache, update_account
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.runs.resuming import train_rest


def train_dpo(task: Task, known_reference: bool = False) -> TrainerPolicy:
    """Train on the comparable pairs of a run's records.

    Args:
        known_reference: whether the file of the reference's log-probabilities is there already, so that the reference
            is another policy than the one at the start.

    Raises:
        RecipeError: there is no pair to train on, too many are left out, ``model.start`` does not fit, or there is
            nothing to resume.
        BadRecord: the base's chat template does not render a record.
    """
    run, data, policy = task.run, task.data, task.run.policy
    assert isinstance(policy, DpoPolicy)
    checkpoint = find_last_checkpoint(run) if task.resume else None
    start = open_start(run, task.base)
    train = encode_training_pairs(data.train, task.renderer, policy, find_cache(run))
    check_training_data(train.report, run.data.most_dropped)
    encoded = {name: encode_preferences(records, task.renderer, equal=True) for name, records in data.eval.items()}
    held = {name: pairs for name, pairs in encoded.items() if len(pairs)}
    reports = {"training": train.report, **{name: each.report for name, each in held.items()}}
    update_account(task.folder, texts={name: each.counts for name, each in reports.items()})
    watch = GradientWatch()
    trainer = make_trainer(task, policy, start, train, held, known_reference)
    trainer.add_callback(watch)
    train_rest(trainer, checkpoint)
    return TrainerPolicy(trainer, {name: _evaluate(trainer, name) for name in held}, watch.moved)


def make_trainer(
    task: Task,
    policy: DpoPolicy,
    start: Adapter | None,
    train: Preferences,
    held: Mapping[str, Preferences],
    known_reference: bool = False,
) -> PreferenceTrainer:
    """Open the policy of a run and make its trainer.

    Args:
        start: the adapter that the policy starts from.
        held: the held-out pairs of each file.
        known_reference: see :func:`train_dpo`.
    """
    run = task.run
    arguments: dict[str, Any] = make_trainer_arguments(run, evaluate=bool(held))
    # must exist before the model: they switch on ZeRO-3, which shards a model while it loads
    settings = TrainingArguments(**arguments, label_names=list(PreferenceLearner.labels))
    model = open_policy(run, task.base, start)
    packed = run.scale.packing != "off" and switch_to_packed(model, policy.max_length)
    return PreferenceTrainer(
        model=model,
        args=settings,
        train_dataset=train,
        eval_dataset=dict(held) or None,
        processing_class=task.renderer.tokenizer,
        callbacks=[History(task.folder / "history.jsonl")],
        policy=policy,
        layout=run.scale.packing if packed else "off",
        pad=task.renderer.tokenizer.pad_token_id,
        references=task.folder / REFERENCES,
        known=task.resume or known_reference,
    )


def _evaluate(trainer: PreferenceTrainer, name: str) -> dict[str, float]:
    """Evaluate a held-out file at the end, and log its figures."""
    prefix = f"eval_{name}"
    found = trainer.evaluate(trainer.eval_dataset[name], metric_key_prefix=prefix)
    figures = ("loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "pairs")
    return {figure: float(found[f"{prefix}_{figure}"]) for figure in figures}
