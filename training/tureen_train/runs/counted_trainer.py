"""``transformers.Trainer`` whose loss is a mean over what is counted in a whole step, on all ranks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from tureen_train.measures.metrics import Array
from tureen_train.measures.non_finite import require_finite


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

    The loss of a step is a mean over what the learner counts in all of its micro-batches on all ranks. So it does not
    depend on how a batch is split.
    """

    def __init__(self, *, args: TrainingArguments, method: Learner, **kwargs: Any) -> None:
        args._n_gpu = min(1, args.n_gpu)  # DataParallel would split a prompt's answers; several GPUs need a launcher
        super().__init__(args=args, compute_metrics=self._compute_metrics, **kwargs)
        self.method = method
        self.model_accepts_loss_kwargs = True  # the loss is already divided by the counts of the step
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._eval_sums = torch.zeros(2)
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
            num_items_in_batch: the counts of the whole step; without them the loss is the mean of this batch.
        """
        if not isinstance(num_items_in_batch, Tensor):
            outcome = self.method.loss(model, inputs, self.method.counts(inputs))
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
        """Compute the loss, the predictions ``[B, ...]`` and the labels of one batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        weight = self.method.counts(inputs)[0]
        self._eval_sums = self._eval_sums + torch.stack([loss.detach() * weight, weight])
        if prediction_loss_only:
            return loss.detach(), None, None
        return loss.detach(), outputs["predictions"], tuple(inputs[name] for name in self.method.labels)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The library's evaluation, with the batches' losses weighed by the learner's first count, not their rows."""
        self._eval_sums = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = self.accelerator.reduce(self._eval_sums, "sum").tolist()
        if count and not self._own_loss:
            output.metrics[f"{metric_key_prefix}_loss"] = total / count
        return output

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
        metrics = self.method.compute_metrics(prediction.predictions, prediction.label_ids)
        self._own_loss = "loss" in metrics
        return metrics
