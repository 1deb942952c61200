"""An expert run from recipe to artifact: DPO by TRL on preference pairs of one domain or objective."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, set_seed
from trl import DPOConfig, DPOTrainer

from tureen.records.schema import Record
from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.experts.expert_reader import compute_mean_logprobs
from tureen_core.manifest import Probe
from tureen_core.probe_readings import Readings
from tureen_core.template import Renderer
from tureen_core.tolerance import BARE, SERVED
from tureen_core.turns import Messages
from tureen_train.config import DpoPolicy, ExpertRun, RecipeError
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.records.encoding_report import EQUAL, EncodingReport, check_training_data
from tureen_train.records.run_data import RunData, load_data
from tureen_train.reports.plots import plot_curves
from tureen_train.runs.expert_artifact import ExpertArtifact
from tureen_train.runs.folder import find_base, update_account, write_probes, write_results
from tureen_train.runs.history import History
from tureen_train.runs.launch import find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch, check_movement
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.proof import finish_run
from tureen_train.runs.rereading import make_expert_reading
from tureen_train.settings import count_processes

Rows = list[dict[str, Any]]
TOO_LONG = "with a prompt longer than policy.max_length"

log = logging.getLogger("tureen.train")


def train_expert(run: ExpertRun, resume: bool = False) -> Artifact | None:
    """Train, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: there is no pair to train on, too many are left out, no answer is short enough for a probe, or
            there is nothing to resume.
        StandstillError: training changed nothing.
        ProofError: the saved adapter gives other likelihoods than the trained one.
    """
    folder, base = Path(run.output), find_base(run)
    checkpoint = find_last_checkpoint(run) if resume else None
    data = load_data(run.data)
    train = make_pair_rows(data.train)
    check_training_data(report_rows(data.train, train), run.data.most_dropped)
    held = {name: rows for name, records in data.eval.items() if (rows := make_pair_rows(records))}
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    conversations = choose_probes(data, renderer, run.probes)
    watch = GradientWatch()
    trainer = _trainer(run, base, train, held)
    trainer.add_callback(watch)
    report = leave_out_equal(trainer, report_rows(data.train, train), run.policy.max_length)
    check_training_data(report, run.data.most_dropped)
    update_account(folder, texts={"training": report.counts})
    trainer.train(resume_from_checkpoint=checkpoint)
    check_movement(trainer.state.log_history, watch.moved)
    metrics = _evaluate(trainer, held) if held else {}
    live = _live_logprobs(trainer, renderer, conversations)
    trainer.save_model(str(folder / "model"))
    artifact = None
    if trainer.is_world_process_zero():
        plot_curves(trainer.state.log_history, folder)
        write_results(folder, run, data.provenance, metrics)
        write_probes(folder, [Probe(messages=each) for each in conversations])
        artifact = finish_run(folder, ExpertArtifact(), live, sharded=run.scale.zero > 0)
    trainer.accelerator.end_training()
    return artifact


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


def choose_probes(data: RunData, renderer: Renderer, count: int) -> list[Messages]:
    """Choose prompts with their best answers as probes: held-out ones first, and none that would be truncated.

    Raises:
        RecipeError: no prompt with its best answer fits into ``policy.max_length``.
    """
    fit: list[Messages] = []
    for record in [*(record for records in data.eval.values() for record in records), *data.train]:
        best = max(range(len(record.scores)), key=lambda n: _rank(record.scores[n]))
        whole = [*map(dict, record.prompt), *map(dict, record.answers[best])]
        if record.prompt and not renderer.render_conversation(whole).truncated:
            fit.append(whole)
        if len(fit) == count:
            return fit
    if not fit:
        raise RecipeError("policy.max_length: no prompt fits with its best answer; raise it")
    return fit


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score


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


def _live_logprobs(trainer: Any, renderer: Renderer, conversations: Sequence[Messages]) -> Readings:
    """Mean log-probabilities of the probes at several weights of the adapter. Every rank must call it."""
    model = trainer.model_wrapped
    model.eval()
    live = read_at_weights(model, lambda: [[each] for each in compute_mean_logprobs(model, renderer, conversations)])
    before, after = (sum(row[0] for row in live[weight]) / len(conversations) for weight in (BARE, SERVED))
    log.info("mean log-probability of the probes: %.3f before, %.3f after", before, after)
    return live
