"""An expert run from recipe to artifact: DPO by TRL, on pairs where one domain's or preference's answer is chosen."""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer

from tureen_core.artifact import Artifact
from tureen_core.base import CACHE, load_tokenizer, locate
from tureen_core.template import Reading
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.data import load_data
from tureen_train.evaluation.plots import curves
from tureen_train.export import export_expert, reading_of, write_report
from tureen_train.launch import arguments, last_checkpoint
from tureen_train.policies.logprob import ExpertReader
from tureen_train.records.schema import Record
from tureen_train.rewards.model import lora_config

log = logging.getLogger("tureen.train")


class ProofError(RuntimeError):
    """The saved expert is not the trained one."""


def train_expert(run: ExpertRun, resume: bool = False) -> Artifact | None:
    """Train, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: an expert without LoRA, no pair to train on, or nothing to resume.
        ProofError: the saved adapter, read again, gives other likelihoods than the trained one.
    """
    if run.model.lora is None:
        raise RecipeError("model.lora: an expert is an adapter, so that it can be souped; give it a rank")
    base = locate(run.model.base, Path(run.cache) if run.cache else CACHE)
    data = load_data(run.data)
    train = pair_rows(data.train)
    if not train:
        raise RecipeError("data.train: no comparable pair is left to train on")
    held = {name: rows for name, records in data.eval.items() if (rows := pair_rows(records))}
    trainer = _trainer(run, base, train, held)
    trainer.train(resume_from_checkpoint=last_checkpoint(run) if resume else None)
    metrics = _evaluate(trainer, held) if held else {}
    saved = Path(run.output) / "model"
    trainer.save_model(str(saved))
    if not trainer.is_world_process_zero():
        trainer.accelerator.end_training()
        return None
    curves(trainer.state.log_history, Path(run.output))
    write_report(Path(run.output), run, data.provenance, metrics, trainer.state.log_history)
    conversations = _probes(next(iter(data.eval.values()), data.train), run.probes)
    (Path(run.output) / "probes.json").write_text(json.dumps(conversations))
    _prove(trainer, saved, base, reading_of(run, base), conversations)
    artifact = export_expert(Path(run.output))
    trainer.accelerator.end_training()
    return artifact


def pair_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """TRL's conversational rows, one a comparable pair; a record whose answers share no prompt gives none."""
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


def _trainer(run: ExpertRun, base: Path, train: list[dict[str, Any]], held: dict[str, list[dict[str, Any]]]) -> Any:
    preference = run.preference
    settings = DPOConfig(
        **arguments(run, evaluate=bool(held)),
        beta=preference.beta,
        loss_type=["sigmoid", "sft"] if preference.sft else ["sigmoid"],
        loss_weights=[1.0, preference.sft] if preference.sft else None,
        max_length=preference.max_length,
        precompute_ref_log_probs=True,
    )
    dtype = torch.bfloat16 if run.model.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=run.model.attention)
    assert run.model.lora is not None
    return DPOTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(train),
        eval_dataset={name: Dataset.from_list(rows) for name, rows in held.items()} or None,
        processing_class=load_tokenizer(base),
        peft_config=lora_config(run.model.lora, model.config, task="CAUSAL_LM"),
    )


def _evaluate(trainer: Any, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """TRL's own figures of every held-out file: loss, implicit-reward accuracy and margin."""
    figures = trainer.evaluate()
    keys = {"loss": "loss", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    return {name: {ours: float(figures[f"eval_{name}_{theirs}"]) for ours, theirs in keys.items()} for name in names}


def _probes(records: Sequence[Record], count: int) -> list[list[dict[str, str]]]:
    """Each probe is a prompt with its best answer."""
    best = [(record, max(range(len(record.scores)), key=lambda n: _rank(record.scores[n]))) for record in records]
    chosen = [(record, record.answers[number]) for record, number in best if record.prompt][:count]
    return [[*map(dict, record.prompt), *map(dict, answer)] for record, answer in chosen]


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _prove(trainer: Any, saved: Path, base: Path, reading: Reading, conversations: list[list[dict[str, str]]]) -> None:
    """An adapter that did not load reads as the bare base: refuse that where training moved it.

    Raises:
        ProofError: it gives the base's likelihoods although training moved them.
    """
    read = ExpertReader(saved, base, reading).mean_logprobs(conversations)
    bare = ExpertReader(None, base, reading).mean_logprobs(conversations)
    moved = any("lora_B" in name and bool(weight.any()) for name, weight in trainer.model.named_parameters())
    if moved and read == bare:
        raise ProofError(f"{saved} reads as the bare base: its adapter was not saved")
    log.info(
        "mean log-probability of the probes: %.3f before, %.3f after", sum(bare) / len(bare), sum(read) / len(read)
    )
