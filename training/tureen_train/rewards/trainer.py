"""The reward trainer: a method's loss on answers that run packed where that is exact."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from tureen_train.config import Packed
from tureen_train.networks.packing import PackedModel, make_packed_collator, switch_to_packed
from tureen_train.rewards.method import Method
from tureen_train.runs.counted_trainer import CountedTrainer


class RewardTrainer(CountedTrainer):
    """Trains by a :class:`tureen_train.rewards.method.Method`. There are no padding rows.

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
        collate = partial(method.collate, width=width)
        super().__init__(args=args, method=method, data_collator=collate, **kwargs)
        if packing != "off" and switch_to_packed(self.model, self.model.reading.max_length):
            self.data_collator = make_packed_collator(collate, packing)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss and the predictions of one batch; a batch with a packed form runs packed."""
        batch = {name: value for name, value in inputs.items() if name != "packing"}
        runs = PackedModel(model, inputs["packing"]) if "packing" in inputs else model
        return super().compute_loss(runs, batch, return_outputs, num_items_in_batch)

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
