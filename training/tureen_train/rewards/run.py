"""A reward run from recipe to artifact, step by step from top to bottom."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.inputs import render_probe
from tureen_core.manifest import Probe
from tureen_core.template import Renderer
from tureen_core.tolerance import SERVED
from tureen_train.config import RecipeError, RewardRun
from tureen_train.records.run_data import RunData, load_data
from tureen_train.reports.plots import plot_curves
from tureen_train.rewards.calibration import EvaluatedFile, calibrate_on_files
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.encoding import EncodedData, encode_data
from tureen_train.rewards.frozen import fit_frozen
from tureen_train.rewards.method import Encodings, Method
from tureen_train.rewards.methods import complete_recipe, find_method
from tureen_train.rewards.start import make_model, open_start
from tureen_train.rewards.trainer import RewardTrainer
from tureen_train.runs.folder import find_base, write_objectives, write_probes, write_results
from tureen_train.runs.history import History
from tureen_train.runs.launch import choose_packing, find_last_checkpoint, make_trainer_arguments
from tureen_train.runs.movement import GradientWatch, check_movement
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.proof import finish_run
from tureen_train.runs.resuming import train_rest
from tureen_train.runs.reward_artifact import RewardArtifact


def train_reward(run: RewardRun, resume: bool = False) -> Artifact | None:
    """Train, evaluate, prove the save, and export.

    Returns:
        The artifact in ``<output>/artifact``; None on the launcher's other ranks.

    Raises:
        RecipeError: there is nothing to train on or to resume, or ``model.start`` does not fit.
        StandstillError: training changed nothing.
        ProofError: the saved model gives other rewards than the trained one.
    """
    folder, base = Path(run.output), find_base(run)
    if resume and run.loss.frozen:
        raise RecipeError(
            "--resume: a run with a frozen backbone has no checkpoints; start it again, its hidden states are cached"
        )
    checkpoint = find_last_checkpoint(run) if resume else None
    renderer, run = resolve_reading(run, base)
    method = find_method(run, renderer)
    begun = open_start(run, base)
    data = load_data(run.data)
    if not data.train:
        raise RecipeError("data.train: no record is left to train on")
    encoded = encode_data(run, method, data)
    probes = method.probes(data, run.probes)
    if not probes:
        raise RecipeError("data.eval: no held-out record makes a probe: raise data.holdout, or name another file")
    texts = [render_probe(renderer, run.loss.input, probe).ids for probe in probes]
    if run.loss.frozen:
        return _frozen(run, base, begun, renderer, data, encoded, method, probes)
    watch = GradientWatch()
    trainer = _trainer(run, base, begun, renderer, encoded, method, watch)
    train_rest(trainer, checkpoint)
    check_movement(trainer.state.log_history, watch.moved)
    evaluated = {name: _evaluate(trainer, each, name) for name, each in encoded.sets.items()}
    live = read_at_weights(trainer.model, lambda: trainer.score_ids(texts))
    trainer.save_model(str(folder / "model"))
    artifact = None
    if trainer.is_world_process_zero():
        write_probes(folder, probes)
        _report(run, method, data, evaluated, trainer.state.log_history)
        artifact = finish_run(folder, RewardArtifact(), live, sharded=run.scale.zero > 0)
    trainer.accelerator.end_training()
    return artifact


def resolve_reading(run: RewardRun, base: Path) -> tuple[Renderer, RewardRun]:
    """Fill in the template's digest and what the method completes. Returns the renderer and the completed recipe.

    Raises:
        RecipeError: the recipe names another template, or other values than its ``model.start`` has.
    """
    tokenizer = load_tokenizer(base)
    digest = Renderer(tokenizer, run.reading).digest()
    if run.reading.template not in ("", digest):
        raise RecipeError(f"reading.template: is {run.reading.template}, but the base's is {digest}; leave the key out")
    reading = run.reading.model_copy(update={"template": digest})
    return Renderer(tokenizer, reading), complete_recipe(run.model_copy(update={"reading": reading}))


def _frozen(
    run: RewardRun,
    base: Path,
    begun: Artifact | None,
    renderer: Renderer,
    data: RunData,
    encoded: EncodedData[Any],
    method: Any,
    probes: Sequence[Probe],
) -> Artifact:
    """Train with a frozen backbone."""
    fitted = fit_frozen(run, base, begun, renderer, encoded, method, probes)
    check_movement(fitted.history)
    evaluated = {name: EvaluatedFile(*fitted.tables[name], metrics) for name, metrics in fitted.metrics.items()}
    write_probes(Path(run.output), probes)
    _report(run, method, data, evaluated, fitted.history)
    return finish_run(Path(run.output), RewardArtifact(), {SERVED: fitted.live})


def _trainer(
    run: RewardRun,
    base: Path,
    begun: Artifact | None,
    renderer: Renderer,
    encoded: EncodedData[Encodings],
    method: Method,
    watch: GradientWatch,
) -> RewardTrainer:
    train, sets = encoded.train, dict(encoded.sets)
    # must exist before the model: they switch on ZeRO-3, which shards a model while it loads
    settings = TrainingArguments(**make_trainer_arguments(run, evaluate=bool(sets)), label_names=list(method.labels))
    return RewardTrainer(
        model=make_model(run, base, begun, train if isinstance(train, EncodedRecords) else None),
        args=settings,
        train_dataset=train,
        eval_dataset=sets or None,
        processing_class=renderer.tokenizer,
        callbacks=[History(Path(run.output) / "history.jsonl"), watch],
        method=method,
        width=max(each.width for each in [train, *sets.values()]),
        packing=choose_packing(run),
    )


def _evaluate(trainer: RewardTrainer, records: Encodings, name: str) -> EvaluatedFile:
    """Evaluate at the end, and log the metrics as the last entries of the history."""
    prediction = trainer.predict(records, metric_key_prefix=f"final_{name}")
    metrics = trainer.method.compute_metrics(prediction.predictions, prediction.label_ids)
    trainer.log({f"eval_{name}_{key}": value for key, value in metrics.items()})
    return EvaluatedFile(prediction.predictions, prediction.label_ids, metrics)


def _report(
    run: RewardRun, method: Method, data: RunData, evaluated: Mapping[str, EvaluatedFile], history: list[dict[str, Any]]
) -> None:
    """Calibrate on the evaluation files; write plots, metrics and objectives."""
    folder = Path(run.output)
    objectives = calibrate_on_files(method, evaluated, run.data.calibrate_on, folder)
    plot_curves(history, folder)
    write_results(folder, run, data.provenance, {name: dict(each.metrics) for name, each in evaluated.items()})
    write_objectives(folder, objectives)
