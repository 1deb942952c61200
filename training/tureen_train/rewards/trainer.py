"""The reward trainer: ``transformers.Trainer`` with a method's loss and several named evaluation files."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from tureen_train.config import Packed
from tureen_train.rewards.attention import NAME, unpackable
from tureen_train.rewards.losses import require_finite
from tureen_train.rewards.method import Method
from tureen_train.rewards.sharing import PackedModel, packed

log = logging.getLogger("tureen.train")


class RewardTrainer(Trainer):
    """Trains by a :class:`tureen_train.rewards.method.Method`.

    A step's loss is a mean over what the method counts in all of its micro-batches on all ranks, so that how a batch is
    split changes nothing. The loss never sees padding rows, since there are none.

    Args:
        width: of the tables in a batch; wide enough for every data set.
        packing: whether the texts of a batch run as one row, and whether those of one prompt share it.
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
        args._n_gpu = min(1, args.n_gpu)  # more are for a launcher's processes: DataParallel would tear groups apart
        collate = partial(method.collate, width=width)
        super().__init__(args=args, data_collator=collate, compute_metrics=self._figures, **kwargs)
        self.method = method
        self.model_accepts_loss_kwargs = True  # the loss is divided by the whole step's counts already
        self._terms: dict[str, Tensor] = {}
        self._steps = 0
        self._judged = torch.zeros(2)
        if packing != "off" and self._packable():
            self.data_collator = packed(collate, packing)

    def _packable(self) -> bool:
        """Set the model's attention for packed rows, unless these would not be exact."""
        model: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        reason = unpackable(model, model.reading.max_length)
        if reason is None:
            model.base_model.set_attn_implementation(NAME)
        else:
            log.info("batches are padded, and no prompt is shared: %s", reason)
        return reason is None

    def _prepare_input(self, data: Any) -> Any:
        """Batches as they are: under DeepSpeed the library would round scores and lengths to bfloat16."""
        return data.to(self.args.device) if isinstance(data, Tensor) else super()._prepare_input(data)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """A step's micro-batches, and what its loss is a mean over: the counts ``[C]`` of all of them on all ranks."""
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
        """Loss of one batch, and what the method predicts.

        Args:
            num_items_in_batch: the whole step's counts; without, the loss is this batch's own mean.
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
            # ranks average their gradients, and what is logged, where a sum is wanted
            loss = require_finite(outcome.loss) * self.accelerator.num_processes
        return (loss, {"predictions": outcome.predictions}) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,  # noqa: ARG002  (the hook's signature)
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, ...] | None]:
        """Loss, predictions ``[B, ...]`` and labels of one batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        weight = self.method.counts(inputs)[0]
        self._judged = self._judged + torch.stack([loss.detach() * weight, weight])
        if prediction_loss_only:
            return loss.detach(), None, None
        return loss.detach(), outputs["predictions"], tuple(inputs[name] for name in self.method.labels)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The library's, with the batches' losses weighed by what the method counts first, not by their texts."""
        self._judged = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = self.accelerator.reduce(self._judged, "sum").tolist()
        if count:
            output.metrics[f"{metric_key_prefix}_loss"] = total / count
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the loss, the mean of each of its terms over the steps since the last time."""
        if "loss" in logs and self._terms:
            names = sorted(self._terms)
            sums = self.accelerator.reduce(torch.stack([self._terms[name] for name in names]), "sum")
            logs.update(zip((f"loss_{name}" for name in names), (sums / self._steps).tolist(), strict=True))
        if "loss" in logs:
            self._terms, self._steps = {}, 0
        super().log(logs, start_time)

    def values(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Rewards of texts, one at a time, by the model as it stands, on every rank alike; one row of K each."""
        model = self.model_wrapped
        model.eval()  # DeepSpeed's returns nothing
        with torch.no_grad(), self.compute_loss_context_manager():
            return [self._values(model, ids) for ids in texts]

    def _values(self, model: Any, ids: Sequence[int]) -> list[float]:
        row = torch.tensor([ids], device=self.args.device)
        values: list[float] = model(input_ids=row, attention_mask=torch.ones_like(row))["rewards"][0].float().tolist()
        return values

    def _figures(self, prediction: EvalPrediction) -> dict[str, float]:
        """Figures of one evaluation file, by name."""
        return self.method.figures(prediction.predictions, prediction.label_ids)
