"""ODIN (arXiv 2402.07319): two heads rank by their sum; one is trained to correlate with length, the other not to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, pad_across_processes
from torch import Tensor

from tureen.messages import join_content
from tureen.records.schema import Record
from tureen_core.artifact import HEAD
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import OdinLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import (
    Array,
    compute_accuracy,
    compute_gaps,
    compute_length_correlation,
    compute_ranking_metrics,
)
from tureen_train.records.run_data import RunData
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords, collate_answers, pad_table
from tureen_train.rewards.losses import find_comparable, sum_ranking_losses
from tureen_train.rewards.probe_texts import choose_answer_probes
from tureen_train.runs.counted_trainer import Outcome
from tureen_train.runs.filled_set import REAL

LENGTH, QUALITY = 0, 1


@dataclass(frozen=True)
class MeasuredRecord(EncodedRecord):
    """Answers with their lengths in tokens, without the prompt."""

    lengths: list[float]


class MeasuredRecords(EncodedRecords):
    """Encoded records. The answers' lengths are counted before truncation."""

    def _encode(self, record: Record, renderer: Renderer) -> MeasuredRecord:
        encoded = super()._encode(record, renderer)
        texts = [join_content(answer[-1]) for answer in record.answers]
        lengths = [float(len(renderer.tokenize_text(text, specials=False))) for text in texts]
        return MeasuredRecord(encoded.ids, encoded.starts, encoded.scores, lengths)


def compute_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two vectors ``[M]``; 0, with a gradient of 0, if one of them is constant."""
    dx, dy = x - x.mean(), y - y.mean()
    spreads = [dx.square().sum(), dy.square().sum()]
    varies = (spreads[0] > 1e-12 * x.square().sum()) & (spreads[1] > 1e-12 * y.square().sum())
    norm = torch.where(varies, spreads[0] * spreads[1], torch.ones_like(spreads[0])).sqrt()
    return torch.where(varies, (dx * dy).sum() / norm, torch.zeros_like(norm))


def compute_length_terms(rewards: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Compute 1 − corr(length, head 0) and |corr(length, head 1)| from ``rewards [M, 2]`` and ``lengths [M]``."""
    return 1 - compute_correlation(rewards[:, LENGTH], lengths), compute_correlation(rewards[:, QUALITY], lengths).abs()


def gather_ranks(rewards: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Gather rewards and lengths of all ranks. Only this rank's own rewards have a gradient.

    The correlation over all answers is not a mean of the ranks' correlations, so all values are needed.
    """
    together = torch.cat([rewards.detach(), lengths[:, None]], dim=1)
    found = gather(pad_across_processes(together, pad_index=float("nan")))
    if len(found) == len(together):
        return rewards, lengths
    present = ~torch.isnan(found[:, -1])
    found, own = found[present], _place(found, present, len(rewards))
    others = found[:, :-1].clone()
    return torch.cat([others[:own], rewards, others[own + len(rewards) :]]), found[:, -1]


def _place(found: Tensor, present: Tensor, rows: int) -> int:
    """The number of the first row of this rank among those present; ranks are gathered in their order."""
    from torch import distributed

    width = len(found) // distributed.get_world_size()
    return int(present[: distributed.get_rank() * width].sum()) if rows else 0


class OdinMethod:
    """Trains ``L_rank + length · (1 − corr) + quality · |corr| + orthogonality · |cos|``.

    L_rank is the mean over pairs of −ln σ(gap), where the gap is of the sum of both heads. (The published code takes
    one σ of the whole batch's sum.) The correlations are over one micro-batch of all ranks, so a micro-batch needs
    many answers.
    """

    labels = ("scores", "lengths")

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, OdinLoss)
        if run.loss.orthogonality and run.scale.zero == 3:
            raise RecipeError(
                "loss.orthogonality needs the whole head on each rank: use scale.zero up to 2, or set it to 0"
            )
        self._loss = run.loss
        self._objective = run.objective
        self._renderer = renderer

    def encode(self, records: Iterable[Record]) -> MeasuredRecords:
        """Encode each prompt's answers, with their lengths."""
        return MeasuredRecords(records, self._renderer)

    def collate(self, items: Sequence[MeasuredRecord], width: int) -> dict[str, Tensor]:
        """Make one batch: rows of answers, and the tables ``scores`` and ``lengths``, ``[B, width]`` each."""
        batch = collate_answers(items, width, self._renderer.tokenizer.pad_token_id)
        batch["lengths"] = pad_table([item.lengths for item in items], width)
        return batch

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The numbers of comparable pairs and of answers, ``[2]``."""
        present = ~torch.isnan(batch["lengths"])
        pairs = find_comparable(batch["scores"][present], batch["group"], batch["texts"])
        return torch.stack([pairs.sum(), present.sum()]).float()

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Compute the loss of one batch; the predictions are both heads' rewards ``[B, width, 2]``."""
        rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])["rewards"].float()
        present = ~torch.isnan(batch["lengths"])
        lengths, scores = batch["lengths"][present], batch["scores"][present]
        pairs, answers = counts.clamp(min=1)
        ranking = sum_ranking_losses(rewards.sum(1), scores, batch["group"], batch["texts"])
        terms = {"ranking": ranking / pairs}
        own = len(rewards) if batch.get(REAL, True) else 0  # a rank without items of its own has no part in it
        gathered = gather_ranks(rewards[:own], lengths[:own])
        long, short = compute_length_terms(*gathered)
        share, factor = own / answers, len(gathered[0]) / max(1, own)
        terms["length"] = self._loss.length * share * _magnified(long, factor)
        terms["quality"] = self._loss.quality * share * _magnified(short, factor)
        if self._loss.orthogonality:
            terms["orthogonality"] = self._loss.orthogonality * share * _parallel(model)
        laid = torch.full((*present.shape, 2), float("nan"), device=rewards.device)
        laid[present] = rewards.detach()
        total = torch.stack(list(terms.values())).sum()
        return Outcome(total, laid, {name: each.detach() for name, each in terms.items()})

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Ranking metrics of the quality head, and the correlation of both heads with length over all answers."""
        scores, lengths = labels
        metrics = compute_ranking_metrics(predictions[..., QUALITY], scores, lengths).plain()
        known = ~np.isnan(lengths)
        for name, column in (("length_head", LENGTH), ("quality_head", QUALITY)):
            row = predictions[..., column][known][None]  # as answers to one prompt, so that the mean is over all
            metrics[f"{name}_length_correlation"] = compute_length_correlation(row, lengths[known][None])
        metrics["both_heads_accuracy"] = compute_accuracy(compute_gaps(predictions.sum(-1), scores))
        return metrics

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Calibrate the quality head; draw ``reliability.png``."""
        quality = predictions[..., QUALITY]
        gaps = compute_gaps(quality, labels[0])
        scale = calibrate_rewards(quality, gaps, folder)
        return [Objective(name=self._objective, column=QUALITY, calibration=scale)]

    def objectives(self) -> list[Objective]:
        """The objective of the quality head, without calibration. The length head has none."""
        return [Objective(name=self._objective, column=QUALITY, calibration=None)]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take the first two answers of held-out prompts, else of training ones."""
        return choose_answer_probes(data, count)


def _magnified(value: Tensor, factor: float) -> Tensor:
    """Multiply the gradient, not the value, by ``factor``: ranks average gradients of which each has a share."""
    return value * factor - value.detach() * (factor - 1)


def _parallel(model: Any) -> Tensor:
    """|cos| of the angle between the head's two rows."""
    names = (f"{HEAD}.weight", f"{HEAD}.modules_to_save.default.weight")
    weight = next(each for name, each in model.named_parameters() if name.endswith(names))
    return torch.cosine_similarity(weight[LENGTH].float(), weight[QUALITY].float(), dim=0).abs()
