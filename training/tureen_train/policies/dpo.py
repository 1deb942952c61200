"""DPO by TRL on preference pairs of one domain or objective."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, set_seed
from trl import DPOConfig

from tureen_core.base import load_tokenizer
from tureen_train.config import DpoPolicy, ExpertRun
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.method import Metrics, Task
from tureen_train.policies.pair_rows import EncodedTrainer, Rows, encode_pairs
from tureen_train.records.encoding_report import check_training_data
from tureen_train.runs.folder import update_account
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch
from tureen_train.settings import count_processes


@dataclass
class TrainedDpo:
    """TRL's trainer after a run, as the frame sees it."""

    model: Any
    policy: Any
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
        BadRecord: the base's chat template does not render a record.
    """
    run, data = task.run, task.data
    checkpoint = find_last_checkpoint(run) if task.resume else None
    train = encode_pairs(data.train, task.renderer)
    check_training_data(train.report, run.data.most_dropped)
    update_account(task.folder, texts={"training": train.report.counts})
    encoded = {name: encode_pairs(records, task.renderer, equal=True).rows for name, records in data.eval.items()}
    held = {name: rows for name, rows in encoded.items() if rows}
    watch = GradientWatch()
    trainer = _trainer(run, task.base, train.rows, held)
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = _evaluate(trainer, held)
    return TrainedDpo(
        model=trainer.model_wrapped,
        policy=trainer.accelerator.unwrap_model(trainer.model_wrapped),
        accelerator=trainer.accelerator,
        history=trainer.state.log_history,
        metrics=metrics,
        moved=watch.moved,
        trainer=trainer,
    )


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
    return EncodedTrainer(
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
