"""The reward trainer: ``transformers.Trainer`` with DSP's losses and its several named evaluation files."""

from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer

from tureen_train.config import RewardLoss
from tureen_train.evaluation.metrics import ranking_metrics
from tureen_train.rewards.losses import finite, imitation_loss, ranking_loss


class RewardTrainer(Trainer):
    """Trains ``L_rank + lm_coefficient · L_LM`` on batches of :class:`tureen_train.rewards.collate.Collator`.

    A mean over the comparable pairs of each micro-batch. The loss never sees padding rows, since there are none.
    """

    def __init__(self, *args: Any, loss: RewardLoss, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=metrics_of, **kwargs)
        self.reward_loss = loss
        self.model_accepts_loss_kwargs = False

    def _prepare_input(self, data: Any) -> Any:
        """Batches as they are: under DeepSpeed the library would round scores and lengths to bfloat16."""
        return data.to(self.args.device) if isinstance(data, Tensor) else super()._prepare_input(data)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002  (the hook's signature)
    ) -> Any:
        """Loss of one batch, and the rewards laid out as the scores are."""
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            imitated=inputs.get("imitated"),
        )
        rewards = output["rewards"][:, 0]
        scores = inputs["scores"]
        present = ~torch.isnan(inputs["lengths"])
        loss = ranking_loss(rewards, scores[present], inputs["group"])
        if output.get("nll") is not None:
            loss = loss + self.reward_loss.lm_coefficient * imitation_loss(output["nll"], inputs["imitated"].any(1))
        laid = torch.full_like(scores, float("nan")).masked_scatter(present, rewards.detach().float())
        return (finite(loss), {"rewards": laid}) if return_outputs else finite(loss)

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,  # noqa: ARG002  (the hook's signature)
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, Tensor] | None]:
        """Loss, rewards ``[B, N]`` and (scores, lengths) ``[B, N]`` of one batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        return loss.detach(), outputs["rewards"], (inputs["scores"], inputs["lengths"])


def metrics_of(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of one evaluation file, by name."""
    scores, lengths = prediction.label_ids
    return ranking_metrics(prediction.predictions, scores, lengths).plain()
