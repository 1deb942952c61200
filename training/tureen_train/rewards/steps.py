"""Process and outcome rewards: the log-odds that a step of an answer is right, read at the step's end.

RLHFlow's math reward models print + or − after each step of a conversation. Here one row of a head is read at the end
of each step and trained by binary cross-entropy. That is the same loss over the two tokens' logits, in one pass. The
texts are the same with ``context: marks``; with ``context: steps`` the earlier marks are not in them.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tureen.errors import Unprocessable
from tureen.records.schema import Record
from tureen_core.inputs import render_probe
from tureen_core.manifest import Objective, Probe
from tureen_core.steps import AGGREGATES, Aggregate, aggregate_steps
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, RewardRun, StepsLoss
from tureen_train.measures.metrics import (
    Array,
    compute_accuracy,
    compute_best_rate,
    compute_calibration_errors,
    pad_rows,
)
from tureen_train.records.rendering import make_probe
from tureen_train.records.run_data import RunData
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import pad_table, pad_texts
from tureen_train.rewards.encoded_steps import EncodedAnswers, EncodedSteps
from tureen_train.rewards.probe_texts import choose_probe_records
from tureen_train.rewards.verdicts import compute_auc, sign_logits, sum_verdict_losses
from tureen_train.runs.counted_trainer import Outcome

log = logging.getLogger("tureen.train")


def check_labels(encoded: EncodedAnswers) -> None:
    """Refuse training records whose labels are all the same, since nothing then tells right from wrong.

    Raises:
        RecipeError: they are.
    """
    known = {label for item in encoded.items for label in item.labels if not math.isnan(label)}
    if len(known) == 1:
        raise RecipeError(
            f"data.train: every label is {known.pop():g}, so nothing tells right from wrong; add answers with others"
        )


class StepsMethod:
    """Trains the mean over labelled steps of −y ln σ(l) − (1 − y) ln(1 − σ(l)). An item of a batch is an answer."""

    labels = ("targets", "answers")

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, StepsLoss)
        self._loss = run.loss
        self._objective = run.objective
        self._renderer = renderer
        self._checked = False

    def encode(self, records: Iterable[Record]) -> EncodedAnswers:
        """Encode the steps of each answer that has a label. The training records come first.

        Raises:
            RecipeError: no answer has a label, or all labels of the training records are the same.
        """
        encoded = EncodedAnswers(records, self._renderer, self._loss)
        if encoded.left_out:
            log.warning("%d answers left out; the first: %s", encoded.left_out, encoded.example)
        if not encoded.items:
            raise RecipeError(
                f"data: no answer has a label for loss.targets: {self._loss.targets}; process needs labels of steps,"
                " outcome needs scores of answers"
            )
        if not self._checked:
            check_labels(encoded)
            self._checked = True
        return encoded

    def collate(self, items: Sequence[EncodedSteps], width: int) -> dict[str, Tensor]:
        """Make one batch: ids ``[B, T]``; ``reads [B, width]``, the tokens where steps are read, padded with −1;
        ``targets [B, width]``, NaN without a label; ``answers [B, 2]``, the prompt's number and whether it is right.
        """
        batch = pad_texts([item.ids for item in items], self._renderer.tokenizer.pad_token_id)
        batch["reads"] = torch.tensor(
            [[*(e - 1 for e in item.ends), *[-1] * (width - len(item.ends))] for item in items]
        )
        batch["targets"] = pad_table([item.labels for item in items], width)
        batch["answers"] = pad_table([[float(item.prompt), item.right] for item in items], 2)
        return batch

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The number of labelled steps, ``[1]``."""
        return (~torch.isnan(batch["targets"])).sum().float()[None]

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Compute the loss of one batch; the predictions are all steps' logits ``[B, width]``, padded with NaN."""
        reads = batch["reads"]
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], reads=reads)
        logits = output["rewards"][..., 0]
        loss = sum_verdict_losses(logits, batch["targets"]) / counts[0].clamp(min=1)
        return Outcome(loss, logits.detach().float().masked_fill(reads < 0, math.nan), {})

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Accuracy, area under the ROC curve and calibration errors of steps; best-of-N of answers."""
        return {**compute_step_metrics(predictions, labels[0]), **compute_best_of_n(predictions, labels[1])}

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Fit mean, deviation and temperature of the logits; draw ``reliability.png``."""
        right = sign_logits(predictions, labels[0])
        scale = calibrate_rewards(predictions, right, folder)
        return [Objective(name=self._objective, calibration=scale)]

    def objectives(self) -> list[Objective]:
        """The reward, without calibration."""
        return [Objective(name=self._objective, calibration=None)]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take held-out answers, else training ones: the first of each prompt, then the second of each, and so on."""
        source = choose_probe_records(data)
        most = max((len(record.answers) for record in source), default=0)
        turns = [(record, turn) for turn in range(most) for record in source if turn < len(record.answers)]
        found = (make_probe(record, record.answers[turn]) for record, turn in turns)
        return list(islice(filter(self._reads, found), count))

    def _reads(self, probe: Probe) -> bool:
        """Whether an answer's steps fit into ``max_length``."""
        try:
            render_probe(self._renderer, "steps", probe)
        except Unprocessable:
            return False
        return True


def compute_step_metrics(logits: Array, targets: Array) -> dict[str, float]:
    """Compute the metrics of steps ``[B, S]``. A verdict is right if σ(logit) is on the label's side of ½."""
    right = sign_logits(logits, targets)
    errors = compute_calibration_errors(right)
    return {
        "steps": float(right.size),
        "accuracy": compute_accuracy(right),
        "auc": compute_auc(logits, targets),
        "ece": errors.ece,
        "ace": errors.ace,
        "mce": errors.mce,
    }


def compute_best_of_n(logits: Array, answers: Array) -> dict[str, float]:
    """Compute how often the highest answer of a prompt is right, for each way to aggregate its steps' probabilities.

    Only prompts with right and wrong answers count; ``mixed`` is their number, and ``chance`` the share of right
    answers. Ties for the highest place share it.

    Args:
        logits: ``[B, S]``, padded with NaN.
        answers: ``[B, 2]``: the prompt's number; 1 right, 0 wrong, NaN not known.
    """
    prompts, known = answers[:, 0], ~np.isnan(answers[:, 1])
    groups = [np.flatnonzero((prompts == number) & known) for number in np.unique(prompts)]
    mixed = [group for group in groups if len(group) and np.ptp(answers[group, 1]) > 0]
    metrics = {"mixed": float(len(mixed))}
    if not mixed:
        return metrics
    right = pad_rows([answers[group, 1] for group in mixed])
    metrics["chance"] = float(np.mean(np.nanmean(right, axis=1)))
    chances = 1 / (1 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -500, 500)))
    for how in AGGREGATES:
        whole = [[_whole(chances[row], how) for row in group] for group in mixed]
        metrics[f"best_{how}"] = compute_best_rate(pad_rows(whole), right)
    return metrics


def _whole(chances: Array, how: Aggregate) -> float:
    return aggregate_steps(chances[~np.isnan(chances)].tolist(), how)
