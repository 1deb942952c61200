"""The pairwise preference model: it reads two answers and gives the log-odds that the first is better.

RLHFlow (arXiv 2405.07863) tunes a language model to print A or B. Here one row of a head is read at the last token and
trained by binary cross-entropy. That is the same loss over the two tokens' logits, and it also takes soft labels.
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

from tureen.records.schema import BadRecord, Record
from tureen_core.chat_template import make_template_inputs
from tureen_core.manifest import Objective, Probe
from tureen_core.pair_texts import render_pair
from tureen_core.template import Renderer
from tureen_train.config import PairLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import Array, compute_accuracy, compute_calibration_errors
from tureen_train.records.encoding_report import EQUAL, EncodingReport
from tureen_train.records.rendering import locate_refusals
from tureen_train.records.run_data import RunData
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import pad_texts
from tureen_train.rewards.probe_texts import choose_probe_records
from tureen_train.rewards.verdicts import sum_verdict_losses
from tureen_train.runs.counted_trainer import Outcome


@dataclass(frozen=True)
class EncodedPair:
    """Two answers in both orders. ``forward`` has the better one first; ``target`` is its probability, ½ for a tie."""

    forward: list[int]
    backward: list[int]
    target: float

    @property
    def equal(self) -> bool:
        """Whether both orders have the same ids: the cut took what differs."""
        return self.forward == self.backward


class EncodedPairs(Dataset[EncodedPair]):
    """Encoded pairs in memory. ``truncated`` is the number of pairs that were cut to ``max_length``."""

    width = 2

    def __init__(self, records: Iterable[Record], renderer: Renderer, loss: PairLoss) -> None:
        self.truncated = self._equal = 0
        self.items = [
            self._encode(record, renderer, *two, target)
            for record in records
            for two, target in label_pairs(record, loss.soft_labels, loss.ties == "half")
        ]

    def _encode(self, record: Record, renderer: Renderer, first: int, second: int, target: float) -> EncodedPair:
        better, worse = record.answers[first], record.answers[second]
        inputs = make_template_inputs(record.template_arguments)
        with locate_refusals(record.source):
            orders = [
                render_pair(renderer, record.prompt, *answers, inputs=inputs)
                for answers in ((better, worse), (worse, better))
            ]
        self.truncated += any(each.truncated for each in orders)
        return EncodedPair(orders[0].ids, orders[1].ids, target)

    @property
    def report(self) -> EncodingReport:
        """The pairs that can be learnt from, and those that are equal after the cut."""
        clear = [item for item in self.items if item.target != 0.5]
        equal = sum(item.equal for item in clear)
        return EncodingReport("pairs", len(clear) - equal, {EQUAL: equal + self._equal}, self.truncated)

    def leave_out_equal(self) -> None:
        """Leave out the pairs that are equal after the cut."""
        kept = [item for item in self.items if not item.equal]
        self._equal += sum(item.target != 0.5 for item in self.items) - sum(item.target != 0.5 for item in kept)
        self.items = kept

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedPair:
        return self.items[index]


def label_pairs(record: Record, soft: bool, ties: bool) -> list[tuple[tuple[int, int], float]]:
    """List the pairs of a record as ((better, worse), probability that the better one is better).

    Args:
        soft: take the probability from the record's ``chosen_prob``, where it has two answers and this field; else 1.
        ties: make pairs of probability ½ from equal scores too.

    Raises:
        BadRecord: ``chosen_prob`` is not between 0 and 1.
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
    """Trains the mean over pairs of −p ln σ(l) − (1 − p) ln(1 − σ(l)). Evaluation reads both orders of each pair."""

    labels = ("targets",)

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, PairLoss)
        self._loss = run.loss
        self._objective = run.objective
        self._renderer = renderer

    def encode(self, records: Iterable[Record]) -> EncodedPairs:
        """Encode each comparable pair in both orders.

        Raises:
            RecipeError: no record has a comparable pair, or, with ``ties: half``, a tie.
        """
        encoded = EncodedPairs(records, self._renderer, self._loss)
        if not encoded.items:
            raise RecipeError("data: no pair is left to compare: no record has two answers with different scores")
        return encoded

    def collate(self, items: Sequence[EncodedPair], width: int) -> dict[str, Tensor]:  # noqa: ARG002  (no tables)
        """Make one batch: ids ``[2B, T]``, first all forward orders, then all backward ones; and ``targets [B]``.

        Where only one order of each pair will run, the ids have other names, so that the trainer does not pack them.
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
        """The number of pairs, ``[1]``."""
        return torch.tensor([float(len(batch["targets"]))], device=batch["targets"].device)

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Compute the loss of one batch; the predictions are the logits ``[B, 2]`` of both orders, NaN if not read."""
        rows, output = self._read(model, batch)
        logits = output["rewards"][:, 0]
        targets = torch.cat([batch["targets"], 1 - batch["targets"]])
        orders = len(rows) / len(batch["targets"])
        loss = sum_verdict_losses(logits, targets[rows]) / (orders * counts[0].clamp(min=1))
        laid = torch.full_like(targets, math.nan)
        laid[rows] = logits.detach().float()
        return Outcome(loss, laid.view(2, -1).T.contiguous(), {})

    def _read(self, model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Run the model. Returns the numbers of the rows that ran, out of ``2B``, and the model's output for them.

        With ``sides: random`` training runs one order of each pair, drawn from the generator that the trainer seeds
        and its checkpoints save.
        """
        pairs = len(batch["targets"])
        every = torch.arange(2 * pairs, device=batch["targets"].device)
        if self._loss.sides == "both":
            return every, model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        rows = every[:pairs] + pairs * torch.randint(2, (pairs,)).to(every.device) if model.training else every
        return rows, model(input_ids=batch["ids"][rows], attention_mask=batch["mask"][rows])

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Accuracy, margins, position bias and calibration errors: see :func:`compute_pair_metrics`."""
        return compute_pair_metrics(predictions, labels[0])

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Fit mean, deviation and, without the position bias, temperature; draw ``reliability.png``."""
        gaps = remove_position_bias(predictions, labels[0])
        scale = calibrate_rewards(predictions, gaps, folder)
        return [Objective(name=self._objective, calibration=scale)]

    def objectives(self) -> list[Objective]:
        """The preference, without calibration."""
        return [Objective(name=self._objective, calibration=None)]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take held-out pairs, else training ones, each in both orders."""
        source = choose_probe_records(data)
        talks = [
            ([*record.prompt, *record.answers[one]], [*record.prompt, *record.answers[other]])
            for record in source
            for better, worse in record.pairs
            for one, other in ((better, worse), (worse, better))
        ]
        return [Probe(messages=messages, rival=rival) for messages, rival in talks[:count]]


def remove_position_bias(logits: Array, targets: Array) -> Array:
    """Average both orders: log-odds ``[P]`` of the better answer from logits ``[B, 2]``. Ties are left out."""
    read, target = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    clear = target != 0.5
    return np.asarray(np.where(target[clear] > 0.5, 0.5, -0.5) * (read[clear, 0] - read[clear, 1]))


def compute_pair_metrics(logits: Array, targets: Array) -> dict[str, float]:
    """Compute the metrics of one file of pairs.

    ``accuracy``: the share of right verdicts by the mean of both orders; a probability of exactly ½ counts one half, as
    in RLHFlow's code. ``flips``: the share of pairs whose verdict changes with the order. ``first_logit``: the mean
    log-odds of the answer in the first place. ``margin``: the mean log-odds of the better answer.

    Args:
        logits: ``[B, 2]``: with the better answer first, and with it second.
        targets: ``[B]``, the probability that it is better. Ties (½) count in ``flips`` and ``first_logit`` only.
    """
    gaps, read = remove_position_bias(logits, targets), np.asarray(logits, dtype=np.float64)
    errors = compute_calibration_errors(gaps)
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
