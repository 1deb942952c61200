"""A reward run from recipe to artifact, readable from top to bottom."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainingArguments

from tureen_core.artifact import Artifact, open_artifact
from tureen_core.base import CACHE, load_tokenizer, locate
from tureen_core.calibration import Calibration, fit
from tureen_core.template import Reading, Renderer
from tureen_train.config import RecipeError, RewardRun
from tureen_train.data import Loaded, load_data
from tureen_train.evaluation.metrics import Array, pairs_of, ranking_metrics
from tureen_train.evaluation.plots import curves, reliability
from tureen_train.export import export_reward, start_folder, write_report
from tureen_train.launch import arguments, last_checkpoint
from tureen_train.records.schema import Record
from tureen_train.rewards import model as models
from tureen_train.rewards.collate import Collator, EncodedRecords
from tureen_train.rewards.prove import prove
from tureen_train.rewards.trainer import RewardTrainer

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class Judged:
    """One evaluation file after training: its tables ``[B, N]`` and its figures."""

    rewards: Array
    scores: Array
    lengths: Array
    figures: Mapping[str, float]


def train_reward(run: RewardRun, resume: bool = False) -> Artifact | None:
    """Train, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: nothing to train on, or nothing to resume.
        ProofError: the saved model, read again, gives other rewards than the trained one.
    """
    base, renderer, run = prepare(run)
    data = load_data(run.data)
    if not data.train:
        raise RecipeError("data.train: no record is left to train on")
    settings = TrainingArguments(**arguments(run, evaluate=bool(data.eval)), label_names=["scores", "lengths"])
    trainer, sets = _trainer(run, base, renderer, data, settings)
    trainer.train(resume_from_checkpoint=last_checkpoint(run) if resume else None)
    judged = {name: _judge(trainer, each, name) for name, each in sets.items()}
    conversations = probe_conversations(data, run.probes)
    live = _live_rewards(trainer, renderer, conversations)
    saved = Path(run.output) / "model"
    (saved.parent / "probes.json").write_text(json.dumps(conversations))
    trainer.save_model(str(saved))
    if not trainer.is_world_process_zero():
        trainer.accelerator.end_training()
        return None
    prove(saved, live, run, base)
    artifact = _finish(run, data, judged, trainer.state.log_history)
    trainer.accelerator.end_training()
    return artifact


def prepare(run: RewardRun) -> tuple[Path, Renderer, RewardRun]:
    """The base's folder, the renderer, and the recipe with the template's digest in its reading."""
    base = locate(run.model.base, Path(run.cache) if run.cache else CACHE)
    tokenizer = load_tokenizer(base)
    digest = Renderer(tokenizer, run.reading).digest()
    if run.reading.template not in ("", digest):
        raise RecipeError(f"reading.template is {run.reading.template} and the base's template is {digest}")
    reading: Reading = run.reading.model_copy(update={"template": digest})
    return base, Renderer(tokenizer, reading), run.model_copy(update={"reading": reading})


def _trainer(
    run: RewardRun, base: Path, renderer: Renderer, data: Loaded, settings: TrainingArguments
) -> tuple[RewardTrainer, dict[str, EncodedRecords]]:
    train = EncodedRecords(data.train, renderer)
    sets = {name: EncodedRecords(records, renderer) for name, records in data.eval.items()}
    log.info("%d prompts to train on, %d answers truncated", len(train), train.truncated)
    zero = run.scale.zero
    begun = open_artifact(Path(run.model.start)) if run.model.start else None
    root = start_folder(begun, base, run.model)
    model = models.load(root, run.model, run.reading, zero=zero)
    if begun is not None and begun.manifest.weights == "lora":
        models.go_on(model, begun)
    width = max(each.width for each in [train, *sets.values()])
    trainer = RewardTrainer(
        model=model,
        args=settings,
        train_dataset=train,
        eval_dataset=sets or None,
        data_collator=Collator(renderer.tokenizer.pad_token_id, run.loss, width),
        processing_class=renderer.tokenizer,
        loss=run.loss,
    )
    return trainer, sets


def _judge(trainer: RewardTrainer, records: EncodedRecords, name: str) -> Judged:
    prediction = trainer.predict(records, metric_key_prefix=f"final_{name}")
    scores, lengths = prediction.label_ids
    figures = ranking_metrics(prediction.predictions, scores, lengths).plain()
    return Judged(prediction.predictions, scores, lengths, figures)


def probe_conversations(data: Loaded, count: int) -> list[list[dict[str, str]]]:
    """Conversations for the probes: the first answers of the held-out prompts, else of the training ones."""
    source: list[Record] = next(iter(data.eval.values()), data.train)
    pairs = [(record, answer) for record in source for answer in record.answers[:2]]
    return [[*map(dict, record.prompt), *map(dict, answer)] for record, answer in pairs[:count]]


def _live_rewards(trainer: RewardTrainer, renderer: Renderer, conversations: list[list[dict[str, str]]]) -> list[float]:
    records = [Record(prompt=(), answers=(tuple(each),), scores=(1.0,), source="probe") for each in conversations]
    table: Any = trainer.predict(EncodedRecords(records, renderer), metric_key_prefix="probe").predictions
    return [float(row[0]) for row in table]


def _finish(run: RewardRun, data: Loaded, judged: Mapping[str, Judged], history: list[dict[str, Any]]) -> Artifact:
    folder = Path(run.output)
    scale = Calibration()
    if judged:
        first = next(iter(judged.values()))
        gaps = pairs_of(first.rewards, first.scores, first.lengths).gaps
        scale = fit(first.rewards[~np.isnan(first.rewards)].tolist(), gaps.tolist())
        if gaps.size:
            reliability(gaps, folder / "reliability.png", scale.temperature)
    curves(history, folder)
    metrics = {name: dict(each.figures) for name, each in judged.items()}
    write_report(folder, run, data.provenance, metrics, history)
    (folder / "calibration.json").write_text(scale.model_dump_json() + "\n")
    return export_reward(folder)
