"""The gate over a frozen multi-attribute model: it weighs the attributes by the prompt (ArmoRM, arXiv 2406.12845)."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tureen.records.schema import Record
from tureen_core.artifact import read_manifest
from tureen_core.gate import write_gate
from tureen_core.heads import GatedHead, LinearHead
from tureen_core.inputs import render_probe
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import Data, GateLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import Array, compute_accuracy, compute_gaps, compute_ranking_metrics
from tureen_train.records.encoding_report import EncodingReport
from tureen_train.records.rendering import make_probe
from tureen_train.records.run_data import RunData, load_data
from tureen_train.rewards.attributes import split_by_prompt
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.features import States
from tureen_train.rewards.frozen import FitContext, compute_rewards
from tureen_train.rewards.gate_fit import find_pairs, train_gate
from tureen_train.rewards.probe_texts import choose_probe_records
from tureen_train.rewards.verbosity import choose_penalties, make_verbosity_transform

UNREAD = "no prompt, an answer cut to reading.max_length, or an answer that begins inside a token"

log = logging.getLogger("tureen.train")


class PromptedRecords(EncodedRecords):
    """Encoded records whose prompt's last token is known. ``unread`` is the number of the others, which are left out.

    Left out are records without a prompt, records with an answer that was cut, and the few records whose answer begins
    inside a token.
    """

    def __init__(self, records: Iterable[Record], renderer: Renderer) -> None:
        given = list(records)
        super().__init__([record for record in given if record.prompt], renderer)
        self.items = [item for item in self.items if all(item.starts)]
        self.unread = len(given) - len(self.items)
        seen = sum(len(item.pairs) + item.equal_pairs for item in self.items)
        self._unread_pairs = sum(len(record.pairs) for record in given) - seen

    @property
    def report(self) -> EncodingReport:
        """The pairs that can be learnt from, and why others cannot."""
        found = super().report
        return replace(found, left_out={**found.left_out, UNREAD: self._unread_pairs})


class GateMethod:
    """Trains the gate by Bradley-Terry's loss on its overall rewards. Backbone, adapter and head are frozen.

    The published code reads the prompt's hidden state where the assistant's header begins. Here it is read at the
    header's last token, which has seen the header. The verbosity transform is a part of the score in training,
    evaluation and serving.
    """

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, GateLoss)
        self._run, self._loss, self._renderer = run, run.loss, renderer
        self._attributes = read_attributes(run)
        self._gate: GatedHead | None = None
        if run.reading.pooling not in ("eos", "last"):
            raise RecipeError(
                f"reading.pooling: a gate reads single tokens; use eos or last, not {run.reading.pooling}"
            )
        if run.objective in run.loss.attributes:
            raise RecipeError(f"objective: {run.objective!r} is an attribute; give the overall reward another name")
        if run.loss.verbosity is not None and run.loss.verbosity not in run.loss.attributes:
            known = ", ".join(run.loss.attributes)
            raise RecipeError(f"loss.verbosity: {run.loss.verbosity!r} is not one of the attributes: {known}")

    def encode(self, records: Iterable[Record]) -> PromptedRecords:
        """Encode each prompt's answers.

        Raises:
            RecipeError: the prompt's end is known for none of them.
        """
        encoded = PromptedRecords(records, self._renderer)
        if encoded.unread:
            log.warning("%d records left out: %s", encoded.unread, UNREAD)
        if not encoded.items:
            raise RecipeError(
                "data: a gate reads the end of the prompt, but no record is left in which it is known:"
                " give records with a prompt, or raise reading.max_length"
            )
        return encoded

    def fit(self, context: FitContext, records: EncodedRecords, states: States) -> None:
        """Compute the verbosity transform and train the gate."""
        head, rewards = context.head, compute_rewards(context.head, states)
        loss, device = self._loss, rewards.device
        sizes = (loss.width, loss.depth, loss.temperature, loss.scale, loss.dropout)
        self._gate = GatedHead(head.in_features, len(self._attributes), *sizes).to(device)
        if loss.verbosity is not None:
            told = (
                rewards if loss.reference is None else compute_rewards(head, context.features(self._reference().items))
            )
            self._gate.transform.copy_(self._transform(told, loss.attributes.index(loss.verbosity)))
        pairs = find_pairs(records).to(device)
        run = self._run
        if run.watch.eval_at_start:
            context.log_metrics(0)
        train_gate(self._gate, rewards, states.prompts.to(device), pairs, run.optimisation, run.watch, context)

    def predict(self, head: LinearHead, states: States) -> Tensor:
        """Predict the attributes' rewards and the overall one, ``[M, K + 1]``."""
        rewards = compute_rewards(head, states)
        with torch.no_grad():
            coefficients = self._fitted.eval().coefficients(states.prompts.to(rewards.device))[states.group]
        return torch.cat([rewards, GatedHead.score(rewards, coefficients)[:, None]], dim=1).cpu()

    def tables(self, records: EncodedRecords, values: Tensor, states: States) -> tuple[Array, list[Array]]:
        """All rewards ``[B, N, K + 1]``; labels: scores and lengths ``[B, N]``, coefficients ``[B, K]``."""
        sizes = [len(item.ids) for item in records.items]
        scores = np.asarray([score for item in records.items for score in item.scores], dtype=np.float64)
        lengths = np.asarray([float(len(ids)) for item in records.items for ids in item.ids])
        with torch.no_grad():
            coefficients = self._fitted.coefficients(states.prompts.to(self._fitted.transform.device))
        labels = [split_by_prompt(scores, sizes), split_by_prompt(lengths, sizes), coefficients.double().cpu().numpy()]
        return split_by_prompt(values.double().numpy(), sizes), labels

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Ranking metrics of the overall reward; accuracy and mean coefficient of each attribute."""
        scores, lengths, coefficients = labels
        metrics = compute_ranking_metrics(predictions[..., -1], scores, lengths).plain()
        for column, name in enumerate(self._loss.attributes):
            metrics[f"{name}_accuracy"] = compute_accuracy(compute_gaps(predictions[..., column], scores))
            metrics[f"{name}_coefficient"] = float(coefficients[:, column].mean())
        return metrics

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Keep the attributes' calibration and fit that of the overall objective; draw ``reliability.png``."""
        overall = predictions[..., -1]
        gaps = compute_gaps(overall, labels[0])
        scale = calibrate_rewards(overall, gaps, folder)
        *attributes, last = self.objectives()
        return [*attributes, last.model_copy(update={"calibration": scale})]

    def objectives(self) -> list[Objective]:
        """The attributes, and the overall one in the column after them."""
        overall = Objective(name=self._run.objective, column=len(self._attributes), calibration=None)
        return [*self._attributes, overall]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take the first two answers of held-out prompts whose end is known, else of training ones."""
        source = choose_probe_records(data)
        found = (make_probe(record, answer) for record in source for answer in record.answers[:2])
        known = (probe for probe in found if render_probe(self._renderer, "conversation", probe).shared)
        return [probe for probe, _ in zip(known, range(count), strict=False)]

    def save(self, folder: Path) -> None:
        """Write the gate."""
        write_gate(self._fitted, folder)

    @property
    def _fitted(self) -> GatedHead:
        assert self._gate is not None, "the gate is made by fit"
        return self._gate

    def _reference(self) -> EncodedRecords:
        assert self._loss.reference is not None
        given = self._run.data
        data = Data(root=given.root, train=[self._loss.reference], holdout=0, most_dropped=given.most_dropped)
        return EncodedRecords(load_data(data).train, self._renderer)

    def _transform(self, rewards: Tensor, verbosity: int) -> Tensor:
        found = choose_penalties(rewards.double().cpu().numpy(), verbosity, self._loss.threshold)
        for name, penalty in zip(self._loss.attributes, found, strict=True):
            log.info("%s: %g times %s is subtracted", name, penalty, self._loss.verbosity)
        return make_verbosity_transform(found, verbosity)


def read_attributes(run: RewardRun) -> list[Objective]:
    """Read the objectives of the multi-attribute model under a gate, in the order of the head's rows.

    Raises:
        RecipeError: ``model.start`` is missing, has a gate itself, or a row of its head has no objective.
        ArtifactError: the folder is not an artifact.
    """
    if run.model.start is None:
        raise RecipeError("model.start: a gate needs an artifact of loss.method: attributes; name its folder")
    manifest = read_manifest(Path(run.model.start).expanduser())
    found = sorted(manifest.objectives, key=lambda each: each.column)
    if manifest.gated or manifest.kind != "reward" or [each.column for each in found] != list(range(len(found))):
        raise RecipeError(
            f"model.start: {manifest.name} is not a multi-attribute model without a gate;"
            " name an artifact of loss.method: attributes"
        )
    return found


def fill_in_attributes(run: RewardRun) -> RewardRun:
    """Return a gate's recipe with the attributes of its ``model.start``.

    Raises:
        RecipeError: the recipe names other attributes, or see :func:`read_attributes`.
    """
    assert isinstance(run.loss, GateLoss)
    names = [each.name for each in read_attributes(run)]
    if run.loss.attributes not in ([], names):
        raise RecipeError(f"loss.attributes: model.start has {', '.join(names)}, in this order; leave the key out")
    return run.model_copy(update={"loss": run.loss.model_copy(update={"attributes": names})})
