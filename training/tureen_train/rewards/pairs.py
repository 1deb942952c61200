"""The pairwise preference model: two answers side by side, and the log-odds that the first is better.

RLHFlow's (arXiv 2405.07863), which tunes a language model to print A or B. One row read at the last token, trained by
binary cross-entropy, is the same loss over those two tokens, needs no token of its own, and takes soft labels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tureen_core.inputs import render_pair
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import PairLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import Array, calibration_error, compute_accuracy
from tureen_train.records.run_data import RunData
from tureen_train.records.schema import BadRecord, Record
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import pad_texts
from tureen_train.rewards.method import Outcome
from tureen_train.rewards.verdicts import sum_verdict_losses


@dataclass(frozen=True)
class EncodedPair:
    """Two answers in both orders, the better one first in ``forward``, and how likely it is the better; ½ is a tie."""

    forward: list[int]
    backward: list[int]
    target: float


class EncodedPairs(Dataset[EncodedPair]):
    """Encoded pairs, in memory. ``truncated`` counts those that were cut to ``max_length``."""

    width = 2

    def __init__(self, records: Iterable[Record], renderer: Renderer, loss: PairLoss) -> None:
        self.truncated = 0
        self.items = [
            self._encode(record, renderer, *two, target)
            for record in records
            for two, target in label_pairs(record, loss.soft_labels, loss.ties == "half")
        ]

    def _encode(self, record: Record, renderer: Renderer, first: int, second: int, target: float) -> EncodedPair:
        better, worse = record.answers[first], record.answers[second]
        orders = [render_pair(renderer, record.prompt, *answers) for answers in ((better, worse), (worse, better))]
        self.truncated += any(each.truncated for each in orders)
        return EncodedPair(orders[0].ids, orders[1].ids, target)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedPair:
        return self.items[index]


def label_pairs(record: Record, soft: bool, ties: bool) -> list[tuple[tuple[int, int], float]]:
    """The pairs of a record as ((better, worse), probability that the better one is).

    Args:
        soft: take ``chosen_prob`` of a record of two answers, where it has one; else 1.
        ties: equal scores make pairs of probability ½, too.

    Raises:
        BadRecord: ``chosen_prob`` is no probability.
    """
    known = record.meta.get("chosen_prob") if soft and len(record.answers) == 2 else None
    target = 1.0 if known is None else known
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 <= target <= 1:
        raise BadRecord("bad score", f"`chosen_prob` must be 0 to 1, is {target!r}", record.source)
    found = [(two, float(target)) for two in record.pairs]
    if ties:
        numbered = combinations(range(len(record.scores)), 2)
        found += [((i, j), 0.5) for i, j in numbered if record.scores[i] == record.scores[j]]
    return found


class PairMethod:
    """Trains −p ln σ(l) − (1 − p) ln(1 − σ(l)), a mean over pairs; judges by both orders of each."""

    labels = ("targets",)

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, PairLoss)
        self._loss = run.loss
        self._objective = run.objective
        self._renderer = renderer

    def encode(self, records: Iterable[Record]) -> EncodedPairs:
        """Each comparable pair in both orders.

        Raises:
            RecipeError: no record has one.
        """
        encoded = EncodedPairs(records, self._renderer, self._loss)
        if not encoded.items:
            raise RecipeError("data: no pair is left to compare; is one answer of a prompt scored above another?")
        return encoded

    def collate(self, items: Sequence[EncodedPair], width: int) -> dict[str, Tensor]:  # noqa: ARG002  (no tables)
        """``[2B, T]`` ids, all pairs in their forward order, then all in their backward one, and ``targets [B]``.

        Where one order of each will run, the rows go by other names, so that the trainer does not pack all of them.
        """
        texts = [item.forward for item in items] + [item.backward for item in items]
        batch = pad_texts(texts, self._renderer.tokenizer.pad_token_id)
        if self._loss.sides == "random":
            batch = {"ids": batch["input_ids"], "mask": batch["attention_mask"]}
        else:
            batch["group"] = torch.arange(len(items)).repeat(2)
        batch["targets"] = torch.tensor([item.target for item in items], dtype=torch.float32)
        return batch

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """How many pairs."""
        return torch.tensor([float(len(batch["targets"]))], device=batch["targets"].device)

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Loss of one batch, and the logits ``[B, 2]`` of both orders, NaN for one that was not read."""
        rows, output = self._read(model, batch)
        logits = output["rewards"][:, 0]
        targets = torch.cat([batch["targets"], 1 - batch["targets"]])
        orders = len(rows) / len(batch["targets"])
        loss = sum_verdict_losses(logits, targets[rows]) / (orders * counts[0].clamp(min=1))
        laid = torch.full_like(targets, math.nan)
        laid[rows] = logits.detach().float()
        return Outcome(loss, laid.view(2, -1).T.contiguous(), {})

    def _read(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Which of the ``2B`` rows ran, and what the model gave for them.

        In training one order of each pair, where so asked, by the generator that the trainer seeds and checkpoints.
        """
        pairs = len(batch["targets"])
        every = torch.arange(2 * pairs, device=batch["targets"].device)
        if self._loss.sides == "both":
            return every, model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        rows = every[:pairs] + pairs * torch.randint(2, (pairs,)).to(every.device) if model.training else every
        return rows, model(input_ids=batch["ids"][rows], attention_mask=batch["mask"][rows])

    def figures(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Accuracy, margins, position bias and calibration; see :func:`compute_pair_metrics`."""
        return compute_pair_metrics(predictions, labels[0])

    def settle(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Mean, deviation and temperature, that of the log-odds without the lean to a side; ``reliability.png``."""
        gaps = remove_position_bias(predictions, labels[0])
        scale = calibrate_rewards(predictions, gaps, folder)
        return [Objective(name=self._objective, calibration=scale)]

    def objectives(self) -> list[Objective]:
        """The one."""
        return [Objective(name=self._objective)]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Held-out pairs, else training ones, each in both orders."""
        source: list[Record] = next(iter(data.eval.values()), data.train)
        talks = [
            ([*record.prompt, *record.answers[one]], [*record.prompt, *record.answers[other]])
            for record in source
            for better, worse in record.pairs
            for one, other in ((better, worse), (worse, better))
        ]
        return [Probe(messages=messages, rival=rival) for messages, rival in talks[:count]]


def remove_position_bias(logits: Array, targets: Array) -> Array:
    """``[P]`` log-odds of the better answer without the lean to a side, from ``[B, 2]`` logits; ties are left out."""
    read, target = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    clear = target != 0.5
    return np.asarray(np.where(target[clear] > 0.5, 0.5, -0.5) * (read[clear, 0] - read[clear, 1]))


def compute_pair_metrics(logits: Array, targets: Array) -> dict[str, float]:
    """Figures of one file of pairs.

    ``accuracy``: share judged right by the mean of both orders, exactly ½ counting one half, as RLHFlow does.
    ``flips``: share whose verdict turns with the order. ``first_logit``: mean log-odds that the model gives the first
    place, whatever stands there. ``margin``: mean log-odds of the better answer.

    Args:
        logits: ``[B, 2]``: with the better answer first, and with it second.
        targets: ``[B]``: how likely it is the better; pairs of ½ count in ``flips`` and ``first_logit`` only.
    """
    gaps, read = remove_position_bias(logits, targets), np.asarray(logits, dtype=np.float64)
    errors = calibration_error(gaps)
    return {
        "pairs": float(gaps.size),
        "accuracy": compute_accuracy(gaps),
        "flips": float(np.mean(read[:, 0] * read[:, 1] > 0)),
        "first_logit": float(read.mean()),
        "margin": float(gaps.mean()) if gaps.size else math.nan,
        "margin_std": float(gaps.std()) if gaps.size else math.nan,
        "ece": errors.ece,
        "ace": errors.ace,
        "mce": errors.mce,
    }
