"""Runs with a frozen backbone: its hidden states are computed once, and the head or gate on top of them is fitted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import set_seed

from tureen.records.schema import Record
from tureen_core.artifact import HEAD, Artifact, read_head_tensors, read_weights
from tureen_core.base import digest_weights
from tureen_core.heads import LinearHead
from tureen_core.inputs import render_probe
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, RewardRun
from tureen_train.measures.metrics import Array
from tureen_train.networks.adapter_start import load_adapter
from tureen_train.networks.reward_model import add_lora, load_reward_model
from tureen_train.records.run_data import RunData
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords
from tureen_train.rewards.encoding import EncodedData
from tureen_train.rewards.features import Features, States
from tureen_train.runs.folder import find_cache
from tureen_train.runs.history import Journal
from tureen_train.settings import count_processes

Table = tuple[Array, list[Array]]


@dataclass(frozen=True)
class FitContext:
    """The context in which a method fits its head or gate.

    Attributes:
        head: the score head.
        features: computes hidden states of more texts.
        journal: the run's log.
        evaluate: the current metrics, by evaluation file.
    """

    head: LinearHead
    features: Features
    journal: Journal
    evaluate: Callable[[], Mapping[str, Mapping[str, float]]]

    def log_metrics(self, step: int) -> Mapping[str, Mapping[str, float]]:
        """Evaluate, and log the metrics under ``step``."""
        found = self.evaluate()
        self.journal.log({"step": step, **flatten_metrics(found)})
        return found


class FrozenMethod(Protocol):
    """A method on frozen hidden states.

    ``encode``, ``compute_metrics``, ``calibrate``, ``objectives`` and ``probes`` are those of
    :class:`tureen_train.rewards.method.Method`.
    """

    def encode(self, records: Iterable[Record]) -> EncodedRecords:
        """Turn records into ids."""

    def fit(self, context: FitContext, records: EncodedRecords, states: States) -> None:
        """Fit to the training records."""

    def predict(self, head: LinearHead, states: States) -> Tensor:
        """Predict ``[M, C]``: a row for each text, a column for each objective."""

    def tables(self, records: EncodedRecords, values: Tensor, states: States) -> Table:
        """Lay out predictions and labels as ``compute_metrics`` takes them."""

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Metrics of one evaluation file, by name."""

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """The objectives with their calibration."""

    def objectives(self) -> list[Objective]:
        """The objectives where no evaluation file calibrates them."""

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Probes without scores."""

    def save(self, folder: Path) -> None:
        """Write what the method fitted besides the head into ``folder``."""


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        tables: predictions and labels, by evaluation file.
        metrics: metrics, by evaluation file.
        live: the probes' rewards, a row each.
        history: the entries of the log.
    """

    tables: Mapping[str, Table]
    metrics: Mapping[str, Mapping[str, float]]
    live: list[list[float]]
    history: list[dict[str, Any]]


def fit_frozen(
    run: RewardRun,
    base: Path,
    begun: Artifact | None,
    renderer: Renderer,
    encoded: EncodedData[EncodedRecords],
    method: FrozenMethod,
    probes: Sequence[Probe],
) -> FitResult:
    """Compute hidden states, fit on them, evaluate, and save the model under ``<output>/model``.

    Raises:
        RecipeError: several processes or ZeRO are asked for, or the method cannot fit the data.
    """
    if count_processes() > 1 or run.scale.zero:
        raise RecipeError(
            "scale: a frozen backbone runs in one process; start it without a launcher and set scale.zero: 0"
        )
    folder = Path(run.output)
    train, sets = encoded.train, encoded.sets
    set_seed(run.optimisation.seed)
    model = open_frozen_model(run, base, begun)
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    identity = f"{digest_weights(base)}:{begun.manifest.version if begun else ''}:{run.model.quantise}"
    features = Features(bare, identity, find_cache(run), run.optimisation.eval_batch)
    files = EvaluationFiles(
        method, find_head(bare), {name: (each, features(each.items)) for name, each in sets.items()}
    )
    folder.mkdir(parents=True, exist_ok=True)
    context = FitContext(files.head, features, Journal(folder / "history.jsonl"), files.evaluate)
    method.fit(context, train, features(train.items))
    metrics = context.log_metrics(context.journal.entries[-1]["step"])
    live = method.predict(files.head, features(_texts(renderer, run, probes))).tolist()
    model.save_pretrained(folder / "model")
    renderer.tokenizer.save_pretrained(folder / "model")
    method.save(folder / "model")
    return FitResult(files.tables(), metrics, live, context.journal.entries)


@dataclass(frozen=True)
class EvaluationFiles:
    """The evaluation files with their hidden states, to be evaluated at any time of the fit."""

    method: FrozenMethod
    head: LinearHead
    files: Mapping[str, tuple[EncodedRecords, States]]

    def tables(self) -> dict[str, Table]:
        """Predictions and labels, by file."""
        return {
            name: self.method.tables(records, self.method.predict(self.head, states), states)
            for name, (records, states) in self.files.items()
        }

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics, by file."""
        return {
            name: self.method.compute_metrics(predicted, labels) for name, (predicted, labels) in self.tables().items()
        }


def flatten_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Turn metrics by evaluation file into one entry of a log."""
    return {f"eval_{file}_{key}": value for file, each in metrics.items() for key, value in each.items()}


def compute_rewards(head: LinearHead, states: States) -> Tensor:
    """The head's rewards ``[M, K]``, on the head's device."""
    with torch.no_grad():
        rewards: Tensor = head(states.answers.to(head.weight.device))
        return rewards


def _texts(renderer: Renderer, run: RewardRun, probes: Sequence[Probe]) -> list[EncodedRecord]:
    texts = [render_probe(renderer, run.loss.input, probe) for probe in probes]
    return [EncodedRecord([text.ids], [text.shared], [0.0]) for text in texts]


def open_frozen_model(run: RewardRun, base: Path, begun: Artifact | None) -> Any:
    """Open the model with all weights frozen. A head of another shape than the recipe's is replaced by a new one."""
    full = begun is not None and begun.manifest.weights == "full"
    folder = begun.folder if begun is not None and full else base
    head = read_head_tensors(folder).get(f"{HEAD}.weight")
    model = load_reward_model(folder, run.model, run.reading, rows=run.loss.rows if head is None else len(head))
    adapter = None
    if begun is not None and not full:
        adapter, head = read_weights(begun)
    model.score = LinearHead(model.config.hidden_size, run.loss.rows)
    model.config.num_labels = run.loss.rows
    if head is not None and head.shape == model.score.weight.shape:
        model.score.weight.data.copy_(head)
    if run.model.lora is not None:
        model = add_lora(model, run.model)
        if adapter is not None:
            load_adapter(model, adapter, {f"{HEAD}.weight": find_head(model.get_base_model()).weight})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.requires_grad_(False).eval().to(device)


def find_head(model: Any) -> LinearHead:
    """Find the score head that a model saves. PEFT keeps it beside the one that it wrapped."""
    head: LinearHead = getattr(model.score, "modules_to_save", {"default": model.score})["default"]
    return head
