"""``transformers.Trainer`` whose loss is a mean over what is counted in a whole step, on all ranks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from tureen_train.measures.metrics import Array
from tureen_train.measures.non_finite import require_finite
from tureen_train.runs.filled_set import REAL, ROWS, FilledSet, Items, collate_filled, fill_rows


@dataclass(frozen=True)
class Outcome:
    """The result of one batch.

    Attributes:
        loss: a scalar, the sum of the terms. Each term is a sum over the batch, divided by its given count.
        predictions: ``[B, ...]`` float32, one row for each item, padded with NaN; evaluation gathers them.
        terms: the terms of the loss, detached, for the log, where each is named ``loss_<name>``.
        figures: what else is logged of a step by its name; sums that are divided by a count as the terms are.
    """

    loss: Tensor
    predictions: Tensor
    terms: Mapping[str, Tensor]
    figures: Mapping[str, Tensor] = field(default_factory=dict)


class Learner(Protocol):
    """What the trainer needs of a way to train: a loss of batches, and metrics of predictions.

    Attributes:
        labels: keys of a batch, ``[B, ...]`` float32 each, that evaluation gathers beside the predictions.
    """

    @property
    def labels(self) -> Sequence[str]:
        """As above."""

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """Count what each term of the loss is a mean over, ``[C]`` float32, before the forward pass."""

    def loss(self, model: Any, batch: Mapping[str, Any], counts: Tensor) -> Outcome:
        """Run the model and compute the loss. ``counts`` are those of this batch or of the whole step."""

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Compute the metrics of one evaluation file, by name. A ``loss`` among them replaces that of the batches."""


class CountedTrainer(Trainer):
    """Trains by a :class:`Learner`.

    The loss of a step is a mean over what the learner counts in all of its micro-batches on all ranks, and the loss of
    an evaluation is one over all of its file. So they do not depend on how a batch or a file is split.
    """

    data_collator: Any

    def __init__(self, *, args: TrainingArguments, method: Learner, **kwargs: Any) -> None:
        args._n_gpu = min(1, args.n_gpu)  # DataParallel would split a prompt's answers; several GPUs need a launcher
        super().__init__(args=args, compute_metrics=self._compute_metrics, **kwargs)
        self.method = method
        self.model_accepts_loss_kwargs = True  # the loss is already divided by the counts of the step
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._eval_counts: Tensor | None = None
        self._eval_loss = torch.zeros(())
        self._evaluated = 0
        self._own_loss = False

    def _prepare_input(self, data: Any) -> Any:
        """Move a batch to the device and keep its dtypes: with DeepSpeed the library would round scores to bfloat16."""
        return data.to(self.args.device) if isinstance(data, Tensor) else super()._prepare_input(data)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The micro-batches of a step, and the counts ``[C]`` of all of them on all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        self._steps += 1
        counts = torch.stack([self.method.counts(batch) for batch in batches]).sum(0)
        return batches, self.accelerator.reduce(counts.to(device), "sum")

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss and the predictions of one batch.

        Args:
            num_items_in_batch: the counts of the whole step; without them those of the file that is evaluated.
        """
        if not isinstance(num_items_in_batch, Tensor):
            counts = self.method.counts(inputs) if self._eval_counts is None else self._eval_counts
            outcome = self.method.loss(model, inputs, counts)
            loss = require_finite(outcome.loss)
        else:
            outcome = self.method.loss(model, inputs, num_items_in_batch)
            named = {**{f"loss_{name}": term for name, term in outcome.terms.items()}, **outcome.figures}
            for name, value in named.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            # the ranks' gradients and losses are averaged, but their sum is wanted
            loss = require_finite(outcome.loss) * self.accelerator.num_processes
        return (loss, {"predictions": outcome.predictions}) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,  # noqa: ARG002  (the hook's signature)
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, ...] | None]:
        """Compute the part of the file's loss, the predictions ``[B, ...]`` and the labels of one batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if inputs[REAL]:
            self._eval_loss = self._eval_loss + loss.detach()
        if prediction_loss_only:
            return loss.detach(), None, None
        rows = int(inputs[ROWS])
        labels = tuple(fill_rows(inputs[name], rows) for name in self.method.labels)
        return loss.detach(), fill_rows(outputs["predictions"], rows), labels

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The library's, over a :class:`.filled_set.FilledSet`."""
        named = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        return self._fill(super().get_eval_dataloader, self.eval_dataset if named is None else named)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As above."""
        return self._fill(super().get_test_dataloader, test_dataset)

    def _fill(self, make: Callable[[Any], Any], items: Items) -> Any:
        processes, collate = self.accelerator.num_processes, self.data_collator
        self.data_collator = partial(collate_filled, collate, items[0])
        try:
            return make(FilledSet(items, processes * self.args.eval_batch_size if processes > 1 else 1))
        finally:
            self.data_collator = collate

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The library's evaluation, with the loss of the file and without what only fills it up."""
        items = dataloader.dataset.items
        self._eval_counts, self._evaluated = self._count_file(items), len(items)
        self._eval_loss = torch.zeros((), device=self.args.device)
        try:
            output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        finally:
            self._eval_counts = None
        loss = float(self.accelerator.reduce(self._eval_loss, "sum"))
        if not self._own_loss:
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        kept = {"predictions": output.predictions, "label_ids": output.label_ids}
        cut = {name: None if found is None else self._leave_out_filling(found) for name, found in kept.items()}
        return output._replace(num_samples=len(items), **cut)

    def _leave_out_filling(self, found: Any) -> Any:
        """Arrays ``[B, ...]`` without the rows that only filled the file up, which are the last ones."""
        return found[: self._evaluated] if isinstance(found, np.ndarray) else tuple(map(self._leave_out_filling, found))

    def _count_file(self, items: Items) -> Tensor:
        """The counts ``[C]`` of all items."""
        size = self.args.eval_batch_size
        starts = range(0, len(items), size)
        batches = ([items[at] for at in range(start, min(start + size, len(items)))] for start in starts)
        counts = [self.method.counts(self.data_collator(batch)) for batch in batches]
        return torch.stack(counts).sum(0).to(self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside the loss also the means of its terms and of other figures since they were logged last."""
        if "loss" in logs and self._sums:
            names = sorted(self._sums)
            sums = self.accelerator.reduce(torch.stack([self._sums[name] for name in names]), "sum")
            logs.update(zip(names, (sums / self._steps).tolist(), strict=True))
        if "loss" in logs:
            self._sums, self._steps = {}, 0
        super().log(logs, start_time)

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Metrics of one evaluation file, by name."""
        predictions, labels = map(self._leave_out_filling, (prediction.predictions, prediction.label_ids))
        metrics = self.method.compute_metrics(predictions, labels)
        self._own_loss = "loss" in metrics
        return metrics
