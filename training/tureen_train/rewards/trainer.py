"""The reward trainer: ``transformers.Trainer`` with a method's loss and several named evaluation files."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from tureen_train.config import Packed
from tureen_train.networks.packing import PackedModel, make_packed_collator, switch_to_packed
from tureen_train.rewards.losses import require_finite
from tureen_train.rewards.method import Method


class RewardTrainer(Trainer):
    """Trains by a :class:`tureen_train.rewards.method.Method`.

    The loss of a step is a mean over what the method counts in all of its micro-batches on all ranks. So it does not
    depend on how a batch is split. There are no padding rows.

    Args:
        width: the number of columns of the tables in a batch, enough for every data set.
        packing: whether the texts of a batch run as one row, and whether texts of one prompt share it.
    """

    def __init__(
        self,
        *,
        args: TrainingArguments,
        method: Method,
        width: int,
        packing: Packed = "off",
        **kwargs: Any,
    ) -> None:
        args._n_gpu = min(1, args.n_gpu)  # DataParallel would split a prompt's answers; several GPUs need a launcher
        collate = partial(method.collate, width=width)
        super().__init__(args=args, data_collator=collate, compute_metrics=self._compute_metrics, **kwargs)
        self.method = method
        self.model_accepts_loss_kwargs = True  # the loss is already divided by the counts of the step
        self._terms: dict[str, Tensor] = {}
        self._steps = 0
        self._eval_sums = torch.zeros(2)
        if packing != "off" and switch_to_packed(self.model, self.model.reading.max_length):
            self.data_collator = make_packed_collator(collate, packing)

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
        batch = {name: value for name, value in inputs.items() if name != "packing"}
        runs = PackedModel(model, inputs["packing"]) if "packing" in inputs else model
        if not isinstance(num_items_in_batch, Tensor):
            outcome = self.method.loss(runs, batch, self.method.counts(batch))
            loss = require_finite(outcome.loss)
        else:
            outcome = self.method.loss(runs, batch, num_items_in_batch)
            for name, term in outcome.terms.items():
                self._terms[name] = self._terms.get(name, torch.zeros_like(term)) + term
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
        """The library's evaluation, with the batches' losses weighed by the method's first count, not their rows."""
        self._eval_sums = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = self.accelerator.reduce(self._eval_sums, "sum").tolist()
        if count:
            output.metrics[f"{metric_key_prefix}_loss"] = total / count
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside the loss also the mean of each of its terms since it was logged last."""
        if "loss" in logs and self._terms:
            names = sorted(self._terms)
            sums = self.accelerator.reduce(torch.stack([self._terms[name] for name in names]), "sum")
            logs.update(zip((f"loss_{name}" for name in names), (sums / self._steps).tolist(), strict=True))
        if "loss" in logs:
            self._terms, self._steps = {}, 0
        super().log(logs, start_time)

    def score_ids(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Score texts one at a time with the current model: a row of K rewards for each. Every rank must call it."""
        model = self.model_wrapped
        model.eval()  # DeepSpeed's returns nothing
        with torch.no_grad(), self.compute_loss_context_manager():
            return [self._score_one(model, ids) for ids in texts]

    def _score_one(self, model: Any, ids: Sequence[int]) -> list[float]:
        row = torch.tensor([ids], device=self.args.device)
        values: list[float] = model(input_ids=row, attention_mask=torch.ones_like(row))["rewards"][0].float().tolist()
        return values

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Metrics of one evaluation file, by name."""
        return self.method.compute_metrics(prediction.predictions, prediction.label_ids)
