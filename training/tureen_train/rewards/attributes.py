"""Multi-attribute regression: one row of the head for each attribute, trained by gradients or in closed form."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tureen.records.schema import Record
from tureen_core.calibration import Calibration, fit_temperature
from tureen_core.heads import LinearHead
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import AttributesLoss, RecipeError, RewardRun
from tureen_train.measures.attributes import compute_attribute_metrics
from tureen_train.measures.metrics import Array, compute_accuracy, compute_gaps
from tureen_train.records.run_data import RunData
from tureen_train.rewards.collate import pad_texts
from tureen_train.rewards.features import States
from tureen_train.rewards.frozen import FitContext, compute_rewards
from tureen_train.rewards.probe_texts import choose_answer_probes
from tureen_train.rewards.rated_records import RatedRecord, RatedRecords
from tureen_train.rewards.regression import Scales, TooFewLabelsError, fit_ridge, sum_squared_errors
from tureen_train.runs.counted_trainer import Outcome

log = logging.getLogger("tureen.train")


class AttributesMethod:
    """Trains the mean squared error over the cells that have a label.

    The training records must be encoded first: their labels set the scales.
    """

    labels = ("ratings",)

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, AttributesLoss)
        if run.objective not in (run.name, ""):
            raise RecipeError("objective: every attribute is an objective of its own; leave the key out")
        self._loss, self._names = run.loss, run.loss.attributes
        self._seed, self._watch = run.optimisation.seed, run.watch
        self._renderer = renderer
        self._scales: Scales | None = None

    def encode(self, records: Iterable[Record]) -> RatedRecords:
        """Encode each prompt's answers, with their ratings.

        Raises:
            RecipeError: no training record rates one of the attributes, or all their ratings are the same.
        """
        given = list(records)
        encoded = RatedRecords(given, self._renderer, self._names)
        if self._scales is None:
            self._check(given, encoded.ratings)
            encoded.leave_out_equal()
            self._check_varied(encoded.ratings)
            self._scales = Scales.of(encoded.ratings)
        return encoded

    def collate(self, items: Sequence[RatedRecord], width: int) -> dict[str, Tensor]:
        """Make one batch: rows of answers, ``ratings [B, width, K]`` to predict, and ``answers [B]``, their counts."""
        batch = pad_texts([ids for item in items for ids in item.ids], self._renderer.tokenizer.pad_token_id)
        laid = np.full((len(items), width, len(self._names)), np.nan)
        for number, item in enumerate(items):
            laid[number, : len(item.ratings)] = self._wanted(np.asarray(item.ratings, dtype=np.float64))
        batch["ratings"] = torch.tensor(laid, dtype=torch.float32)
        batch["answers"] = torch.tensor([len(item.ids) for item in items])
        return batch

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The number of cells with a label, ``[1]``."""
        return (~torch.isnan(batch["ratings"])).sum().reshape(1).float()

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Compute the loss of one batch; the predictions have the shape of ``ratings``."""
        rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])["rewards"]
        ratings = batch["ratings"]
        present = torch.arange(ratings.shape[1], device=ratings.device) < batch["answers"][:, None]
        loss = sum_squared_errors(rewards, ratings[present]) / counts[0].clamp(min=1)
        laid = torch.full_like(ratings, float("nan"))
        laid[present] = rewards.detach().float()
        return Outcome(loss, laid, {})

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Errors of each attribute in its own unit, and the accuracy of ranking a prompt's answers by it."""
        scale = self._unit()
        known, predicted = (each * scale.std + scale.mean for each in (labels[0], predictions))
        metrics = compute_attribute_metrics(predicted, known, self._names)
        for column, name in enumerate(self._names):
            metrics |= {f"{name}_label_mean": self._scale.mean[column], f"{name}_label_std": self._scale.std[column]}
            gaps = compute_gaps(predictions[..., column], labels[0][..., column])
            if gaps.size:
                metrics[f"{name}_accuracy"] = compute_accuracy(gaps)
        return {name: float(value) for name, value in metrics.items()}

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:  # noqa: ARG002
        """Take mean and deviation from the training labels; fit a temperature on pairs that are rated differently."""
        temperatures = [
            fit_temperature(compute_gaps(predictions[..., column], labels[0][..., column]).tolist())
            for column in range(len(self._names))
        ]
        return self._objectives(temperatures)

    def objectives(self) -> list[Objective]:
        """The attributes with mean and deviation of the training labels."""
        return self._objectives([1.0] * len(self._names))

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take the first two answers of held-out prompts, else of training ones."""
        return choose_answer_probes(data, count)

    # ----------------------------------------------------------------------- closed form

    def fit(self, context: FitContext, records: RatedRecords, states: States) -> None:
        """Set each row of the head to its attribute's ridge regression.

        Raises:
            RecipeError: an attribute has too few labels to choose its penalty.
        """
        if self._watch.eval_at_start:
            context.log_metrics(0)
        answers, wanted = states.answers.double().numpy(), self._wanted(records.ratings)
        loss = self._loss
        try:
            found = fit_ridge(answers, wanted, states.group.numpy(), loss.alphas, loss.validation, self._seed)
        except TooFewLabelsError as error:
            raise RecipeError(f"loss.attributes: {self._names[error.column]!r}: {error}") from error
        context.head.weight.data.copy_(torch.from_numpy(found.weights))
        for name, alpha, mean in zip(self._names, found.alphas, found.errors, strict=True):
            log.info("%s: ridge penalty %g, squared error %.4g on validation", name, alpha, mean)
        chosen = {f"{name}_alpha": alpha for name, alpha in zip(self._names, found.alphas, strict=True)}
        context.journal.log({"step": 1, "loss": float(np.mean(found.errors)), **chosen})

    def predict(self, head: LinearHead, states: States) -> Tensor:
        """The head's rewards ``[M, K]``."""
        return compute_rewards(head, states).cpu()

    def tables(self, records: RatedRecords, values: Tensor, states: States) -> tuple[Array, list[Array]]:  # noqa: ARG002
        """Predictions and ratings, ``[B, N, K]`` each."""
        sizes = [len(item.ids) for item in records.items]
        return split_by_prompt(values.double().numpy(), sizes), [split_by_prompt(self._wanted(records.ratings), sizes)]

    def save(self, folder: Path) -> None:
        """Write nothing: the head is saved with the model."""

    # ----------------------------------------------------------------------- scales

    @property
    def _scale(self) -> Scales:
        assert self._scales is not None, "the training records are encoded first"
        return self._scales

    def _unit(self) -> Scales:
        """The scale between predictions and the labels' own unit."""
        k = len(self._names)
        return self._scale if self._loss.standardise else Scales(np.zeros(k), np.ones(k))

    def _wanted(self, ratings: Array) -> Array:
        return self._unit().standardise(ratings)

    def _objectives(self, temperatures: Sequence[float]) -> list[Objective]:
        """Make calibrated rewards z-scores: predictions are already, or the labels' mean and deviation make them so."""
        scale = Scales(np.zeros(len(self._names)), np.ones(len(self._names))) if self._loss.standardise else self._scale
        rows = zip(self._names, scale.mean.tolist(), scale.std.tolist(), temperatures, strict=True)
        return [
            Objective(name=name, column=column, calibration=Calibration(mean=mean, std=std, temperature=temperature))
            for column, (name, mean, std, temperature) in enumerate(rows)
        ]

    def _check(self, records: Sequence[Record], ratings: Array) -> None:
        found = ", ".join(sorted({name for record in records for name in record.attributes})) or "none"
        for name, column in zip(self._names, ratings.T, strict=True):
            if np.isnan(column).all():
                raise RecipeError(f"loss.attributes: no training record rates {name!r}; the records rate: {found}")

    def _check_varied(self, ratings: Array) -> None:
        """Refuse ratings from which nothing can be learnt, and tell of each attribute that does not vary."""
        known = [np.unique(column[~np.isnan(column)]) for column in ratings.T]
        same = [f"{name} {values[0]:g}" for name, values in zip(self._names, known, strict=True) if values.size == 1]
        if same and len(same) == len(self._names):
            raise RecipeError(
                f"loss.attributes: all training records have the same ratings ({', '.join(same)}), so there is nothing "
                "to learn"
            )
        if same:
            log.warning("nothing can be learnt of ratings that are all the same: %s", ", ".join(same))


def split_by_prompt(rows: Array, sizes: Sequence[int]) -> Array:
    """Split rows ``[M, ...]`` by prompt into ``[B, N, ...]``, padded with NaN; prompt b has ``sizes[b]`` rows."""
    table = np.full((len(sizes), max(sizes, default=0), *rows.shape[1:]), np.nan)
    start = 0
    for number, size in enumerate(sizes):
        table[number, :size] = rows[start : start + size]
        start += size
    return table
