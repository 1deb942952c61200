"""TRL's trainer for supervised fine-tuning, with exact figures of evaluation and a check of its packing."""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

log = logging.getLogger("tureen.train")


class CompletionTrainer(SFTTrainer):
    """TRL's trainer. Its loss of a step is the mean over the answers' tokens of the step, on all ranks.

    Evaluation gives means over all tokens of a file, each read once, whatever the batches and ranks; TRL's own would be
    means of batches.
    """

    data_collator: Any

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The library's, but padded: figures are gathered text by text, and packed texts are in one row."""
        packed = self.data_collator
        self.data_collator = DataCollatorForLanguageModeling(self.processing_class.pad_token_id)
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = packed

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,  # noqa: ARG002  (the hook's signature)
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute ``loss``, ``entropy`` and ``top1``, the share of tokens that are the likeliest ones, in float64."""
        log.info("%s: %d answers", description, len(dataloader.dataset))
        self.model_wrapped.eval()
        found = []
        for batch in dataloader:
            with self.compute_loss_context_manager():
                sums = self._sum_tokens(self._prepare_inputs(batch))
            found.append(self.accelerator.gather_for_metrics(sums).double().cpu())
        loss, entropy, top1, tokens = torch.cat(found).sum(0).tolist()
        figures = {"loss": loss / tokens, "entropy": entropy / tokens, "top1": top1 / tokens, "tokens": tokens}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))

    def _sum_tokens(self, inputs: dict[str, Any]) -> Tensor:
        """Sum each text's −log π, entropies, tokens that are the likeliest, and tokens: ``[B, 4]`` float32."""
        output = self.model_wrapped(**inputs, use_cache=False, fused_lm_head=True)
        values = (-output.log_probs, output.entropy, output.is_top1, output.label_mask)
        return torch.stack([each.float().sum(1) for each in values], 1)


class TokenCounter(TrainerCallback):
    """Lets a resumed run go on with the ``num_tokens`` of the checkpoint's log; TRL alone would count from 0 again."""

    def __init__(self, trainer: CompletionTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the last number."""
        told = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self._trainer._total_train_tokens = told[-1] if told else 0


@torch.no_grad()
def find_row_packing_obstacle(model: Any, sharded: bool) -> str | None:
    """Say why texts in one row, told apart by their positions alone, would not be computed as each alone; None if so.

    That is how TRL packs. Models pass the positions on to their attention's mask or not, so two short texts are run
    both ways.

    Args:
        sharded: whether the model is sharded by ZeRO-3 and cannot run yet.
    """
    if sharded:
        return "a sharded model cannot be tried"
    first, second = (torch.arange(3, end, device=model.device) for end in (8, 14))
    row = torch.cat([first, second])[None]
    positions = torch.cat([torch.arange(len(each), device=row.device) for each in (first, second)])[None]
    mode = model.training
    model.eval()
    found = model(input_ids=row, position_ids=positions, use_cache=False).logits[0]
    alone = torch.cat([model(input_ids=each[None], use_cache=False).logits[0] for each in (first, second)])
    model.train(mode)
    distance = float((found - alone).float().norm() / alone.float().norm())
    return None if distance < 1e-2 else "a text in a row sees the text before it"
