"""DPO by TRL on preference pairs of one domain or objective."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, set_seed
from trl import DPOConfig, DPOTrainer

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_train.config import DpoPolicy, ExpertRun
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.method import Metrics, Task
from tureen_train.records.encoding_report import EQUAL, EncodingReport, check_training_data
from tureen_train.runs.folder import update_account
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.settings import count_processes

Rows = list[dict[str, Any]]
TOO_LONG = "with a prompt longer than policy.max_length"


@dataclass
class TrainedDpo:
    """TRL's trainer after a run, as the frame sees it."""

    model: Any
    accelerator: Any
    history: Sequence[Mapping[str, Any]]
    metrics: Metrics
    moved: bool
    trainer: Any

    def save(self, folder: Path) -> None:
        """Write the adapter. Every rank must call it."""
        self.trainer.save_model(str(folder))


def train_dpo(task: Task) -> TrainedDpo:
    """Train on the pairs of a run's records.

    Raises:
        RecipeError: there is no pair to train on, too many are left out, or there is nothing to resume.
    """
    run, data = task.run, task.data
    checkpoint = find_last_checkpoint(run) if task.resume else None
    train = make_pair_rows(data.train)
    check_training_data(report_rows(data.train, train), run.data.most_dropped)
    held = {name: rows for name, records in data.eval.items() if (rows := make_pair_rows(records))}
    watch = GradientWatch()
    trainer = _trainer(run, task.base, train, held)
    trainer.add_callback(watch)
    report = leave_out_equal(trainer, report_rows(data.train, train), run.policy.max_length)
    check_training_data(report, run.data.most_dropped)
    update_account(task.folder, texts={"training": report.counts})
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = _evaluate(trainer, held) if held else {}
    return TrainedDpo(
        model=trainer.model_wrapped,
        accelerator=trainer.accelerator,
        history=trainer.state.log_history,
        metrics=metrics,
        moved=watch.moved,
        trainer=trainer,
    )


def make_pair_rows(records: Sequence[Record]) -> Rows:
    """Make TRL's conversational rows, one for each comparable pair. A record without a prompt gives none.

    Raises:
        BadRecord: a record has tools or template arguments, which these rows do not carry.
    """
    for record in records:
        record.check_no_template_arguments()
    return [
        {
            "prompt": [dict(turn) for turn in record.prompt],
            "chosen": [dict(turn) for turn in record.answers[better]],
            "rejected": [dict(turn) for turn in record.answers[worse]],
        }
        for record in records
        if record.prompt
        for better, worse in record.pairs
    ]


def report_rows(records: Sequence[Record], rows: Rows) -> EncodingReport:
    """Count the pairs that became rows, and those without a prompt."""
    bare = sum(len(record.pairs) for record in records if not record.prompt)
    return EncodingReport("pairs", len(rows), {"without a prompt": bare})


def leave_out_equal(trainer: Any, report: EncodingReport, length: int) -> EncodingReport:
    """Leave out of training the pairs that are equal after TRL's cut at the right; count them, and those TRL dropped.

    Args:
        trainer: its training data are tokenised.
        report: of the rows that the trainer was given.
        length: ``policy.max_length``, at which TRL cuts.
    """
    rows = trainer.train_dataset
    sides = [
        [[*row["prompt_ids"], *row[f"{side}_ids"]] for side in ("chosen", "rejected")]
        for row in rows.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
    ]
    different = [at for at, (chosen, rejected) in enumerate(sides) if chosen[:length] != rejected[:length]]
    trainer.train_dataset = rows.select(different)
    lost = {
        TOO_LONG: report.kept - len(rows),
        EQUAL: len(rows) - len(different),
    }
    cut = sum(len(ids) > length for each in sides for ids in each)
    return replace(report, kept=len(different), left_out={**report.left_out, **lost}, truncated=cut)


def _trainer(run: ExpertRun, base: Path, train: Rows, held: Mapping[str, Rows]) -> Any:
    policy = run.policy
    assert isinstance(policy, DpoPolicy)
    set_seed(run.optimisation.seed)
    settings = DPOConfig(
        **make_trainer_arguments(run, evaluate=bool(held)),
        beta=policy.beta,
        loss_type=["sigmoid", "sft"] if policy.sft else ["sigmoid"],
        loss_weights=[1.0, policy.sft] if policy.sft else None,
        max_length=policy.max_length,
        # with several processes TRL passes them on in a file that only the writing process finds
        precompute_ref_log_probs=count_processes() < 2,
    )
    assert run.model.lora is not None  # the recipe checks it
    dtype = torch.bfloat16 if run.model.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=run.model.attention)
    return DPOTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(train),
        eval_dataset={name: Dataset.from_list(rows) for name, rows in held.items()} or None,
        processing_class=load_tokenizer(base),
        peft_config=make_lora_config(run.model.lora, model, task="CAUSAL_LM"),
        callbacks=[History(Path(run.output) / "history.jsonl")],
    )


def _evaluate(trainer: Any, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """TRL's metrics of each held-out file: loss, accuracy and margin of the implicit reward."""
    return {name: _evaluate_file(trainer, name) for name in names}


def _evaluate_file(trainer: Any, name: str) -> dict[str, float]:
    trainer.evaluate(name, metric_key_prefix=f"eval_{name}")
    logged = trainer.state.log_history[-1]  # `evaluate` returns no rewards, but logs them
    keys = {"loss": f"eval_{name}_loss", "accuracy": "eval_rewards/accuracies", "margin": "eval_rewards/margins"}
    return {ours: float(logged[theirs]) for ours, theirs in keys.items()}
