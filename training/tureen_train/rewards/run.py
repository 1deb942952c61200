"""A reward run from recipe to artifact, readable from top to bottom."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainingArguments

from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.calibration import Calibration, fit
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, RewardRun
from tureen_train.data import Loaded, load_data
from tureen_train.evaluation.metrics import Array, gaps_of, ranking_metrics
from tureen_train.evaluation.plots import curves, reliability
from tureen_train.export import find_base, write_report
from tureen_train.launch import arguments, last_checkpoint
from tureen_train.progress import History
from tureen_train.proof import finish
from tureen_train.records.schema import Record
from tureen_train.rewards.collate import Collator, EncodedRecords
from tureen_train.rewards.start import earlier, start
from tureen_train.rewards.trainer import RewardTrainer

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class Judged:
    """One evaluation file after training: its tables of rewards and scores ``[B, N]`` and its figures."""

    rewards: Array
    scores: Array
    figures: Mapping[str, float]


def train_reward(run: RewardRun, resume: bool = False) -> Artifact | None:
    """Train, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: nothing to train on, a start that does not fit, or nothing to resume.
        ProofError: the saved model, read again, gives other rewards than the trained one.
    """
    folder, base = Path(run.output), find_base(run)
    checkpoint = last_checkpoint(run) if resume else None
    renderer, run = prepare(run, base)
    begun = earlier(run, base)
    data = load_data(run.data)
    if not data.train:
        raise RecipeError("data.train: no record is left to train on")
    trainer, sets = _trainer(run, base, begun, renderer, data)
    trainer.train(resume_from_checkpoint=checkpoint)
    judged = {name: _judge(trainer, each, name) for name, each in sets.items()}
    conversations = probe_conversations(data, run.probes)
    live = _live_rewards(trainer, renderer, conversations)
    trainer.save_model(str(folder / "model"))
    artifact = None
    if trainer.is_world_process_zero():
        (folder / "probes.json").write_text(json.dumps(conversations) + "\n")
        _report(run, data, judged, trainer.state.log_history)
        artifact = finish(folder, live, sharded=run.scale.zero > 0)
    trainer.accelerator.end_training()
    return artifact


def prepare(run: RewardRun, base: Path) -> tuple[Renderer, RewardRun]:
    """The renderer, and the recipe with the template's digest in its reading."""
    tokenizer = load_tokenizer(base)
    digest = Renderer(tokenizer, run.reading).digest()
    if run.reading.template not in ("", digest):
        raise RecipeError(f"reading.template is {run.reading.template} and the base's template is {digest}")
    reading = run.reading.model_copy(update={"template": digest})
    return Renderer(tokenizer, reading), run.model_copy(update={"reading": reading})


def _trainer(
    run: RewardRun, base: Path, begun: Artifact | None, renderer: Renderer, data: Loaded
) -> tuple[RewardTrainer, dict[str, EncodedRecords]]:
    train = EncodedRecords(data.train, renderer)
    sets = {name: EncodedRecords(records, renderer) for name, records in data.eval.items()}
    log.info("%d prompts to train on, %d answers truncated", len(train), train.truncated)
    # before the model: ZeRO-3 takes a model apart as it is loaded, and these settings tell it to
    settings = TrainingArguments(**arguments(run, evaluate=bool(sets)), label_names=["scores", "lengths"])
    width = max(each.width for each in [train, *sets.values()])
    trainer = RewardTrainer(
        model=start(run, base, begun, train),
        args=settings,
        train_dataset=train,
        eval_dataset=sets or None,
        data_collator=Collator(renderer.tokenizer.pad_token_id, run.loss, width),
        processing_class=renderer.tokenizer,
        callbacks=[History(Path(run.output) / "history.jsonl")],
        loss=run.loss,
    )
    return trainer, sets


def _judge(trainer: RewardTrainer, records: EncodedRecords, name: str) -> Judged:
    """The figures at the end, which also close the history."""
    prediction = trainer.predict(records, metric_key_prefix=f"final_{name}")
    scores, lengths = prediction.label_ids
    figures = ranking_metrics(prediction.predictions, scores, lengths).plain()
    trainer.log({f"eval_{name}_{key}": value for key, value in figures.items()})
    return Judged(prediction.predictions, scores, figures)


def probe_conversations(data: Loaded, count: int) -> list[list[dict[str, str]]]:
    """Conversations for the probes: the first answers of the held-out prompts, else of the training ones."""
    source: list[Record] = next(iter(data.eval.values()), data.train)
    pairs = [(record, answer) for record in source for answer in record.answers[:2]]
    return [[*map(dict, record.prompt), *map(dict, answer)] for record, answer in pairs[:count]]


def _live_rewards(trainer: RewardTrainer, renderer: Renderer, conversations: list[list[dict[str, str]]]) -> list[float]:
    records = [Record(prompt=(), answers=(tuple(each),), scores=(1.0,), source="probe") for each in conversations]
    rewards: Any = trainer.predict(EncodedRecords(records, renderer), metric_key_prefix="probe").predictions
    return [float(row[0]) for row in rewards]


def _report(run: RewardRun, data: Loaded, judged: Mapping[str, Judged], history: list[dict[str, Any]]) -> None:
    """Calibrate on the first evaluation file; write plots and figures."""
    folder = Path(run.output)
    scale = Calibration()
    if judged:
        first = next(iter(judged.values()))
        gaps = gaps_of(first.rewards, first.scores)
        scale = fit(first.rewards[~np.isnan(first.rewards)].tolist(), gaps.tolist())
        if gaps.size:
            reliability(gaps, folder / "reliability.png", scale.temperature)
    curves(history, folder)
    write_report(folder, run, data.provenance, {name: dict(each.figures) for name, each in judged.items()})
    (folder / "calibration.json").write_text(scale.model_dump_json() + "\n")
