"""The gate of a frozen multi-attribute model: which attribute counts how much, by the prompt (ArmoRM, 2406.12845)."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tureen_core.artifact import read_manifest
from tureen_core.gate import write_gate
from tureen_core.heads import GatedHead, LinearHead
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import Data, GateLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import Array, compute_accuracy, compute_gaps, ranking_metrics
from tureen_train.records.run_data import RunData, load_data
from tureen_train.records.schema import Record
from tureen_train.rewards.attributes import pad_rows
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.features import States
from tureen_train.rewards.frozen import Ground, compute_rewards
from tureen_train.rewards.gate_fit import find_pairs, train_gate
from tureen_train.rewards.verbosity import choose_penalties, make_verbosity_transform

log = logging.getLogger("tureen.train")


class PromptedRecords(EncodedRecords):
    """Encoded records whose prompts' last token is known; ``unread`` counts those left out.

    Left out are records without a prompt, those with an answer that was cut, and the few whose answer begins inside
    a token.
    """

    def __init__(self, records: Iterable[Record], renderer: Renderer) -> None:
        given = list(records)
        super().__init__([record for record in given if record.prompt], renderer)
        self.items = [item for item in self.items if all(item.starts)]
        self.unread = len(given) - len(self.items)


class GateMethod:
    """Trains the gate by Bradley-Terry's loss on its overall rewards; backbone, adapter and rows stay as they are.

    The published code reads the prompt where the assistant's header begins; here it is the header's last token, which
    has seen the header. The verbosity transform is part of the score in training, evaluation and serving.
    """

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, GateLoss)
        self._run, self._loss, self._renderer = run, run.loss, renderer
        self._attributes = read_attributes(run)
        self._gate: GatedHead | None = None
        if run.reading.pooling not in ("eos", "last"):
            raise RecipeError(f"reading.pooling: a gate reads single tokens, so eos or last, not {run.reading.pooling}")
        if run.objective in run.loss.attributes:
            raise RecipeError(f"objective: {run.objective!r} is an attribute; name the overall reward otherwise")
        if run.loss.verbosity is not None and run.loss.verbosity not in run.loss.attributes:
            known = ", ".join(run.loss.attributes)
            raise RecipeError(f"loss.verbosity: {run.loss.verbosity!r} is none of the attributes: {known}")

    def encode(self, records: Iterable[Record]) -> PromptedRecords:
        """Each prompt's answers as ids.

        Raises:
            RecipeError: no prompt's end is known.
        """
        encoded = PromptedRecords(records, self._renderer)
        if encoded.unread:
            log.warning("%d records left out: no prompt, or cut to reading.max_length, or no border", encoded.unread)
        if not encoded.items:
            raise RecipeError("data: the gate reads the prompt's end, which no record has; see reading.max_length")
        return encoded

    def learn(self, ground: Ground, records: EncodedRecords, states: States) -> None:
        """Make the verbosity transform and train the gate.

        Raises:
            RecipeError: no pair to train on.
        """
        head, rewards = ground.head, compute_rewards(ground.head, states)
        loss, device = self._loss, rewards.device
        sizes = (loss.width, loss.depth, loss.temperature, loss.scale, loss.dropout)
        self._gate = GatedHead(head.in_features, len(self._attributes), *sizes).to(device)
        if loss.verbosity is not None:
            told = (
                rewards if loss.reference is None else compute_rewards(head, ground.features(self._reference().items))
            )
            self._gate.transform.copy_(self._transform(told, loss.attributes.index(loss.verbosity)))
        pairs = find_pairs(records).to(device)
        if not len(pairs):
            raise RecipeError("data.train: no record has two answers of which one is better")
        run = self._run
        if run.watch.eval_at_start:
            ground.judged(0)
        train_gate(self._gate, rewards, states.prompts.to(device), pairs, run.optimisation, run.watch, ground)

    def values(self, head: LinearHead, states: States) -> Tensor:
        """The attributes' rewards and the overall one, ``[M, K + 1]``."""
        rewards = compute_rewards(head, states)
        with torch.no_grad():
            coefficients = self._opened.eval().coefficients(states.prompts.to(rewards.device))[states.group]
        return torch.cat([rewards, GatedHead.score(rewards, coefficients)[:, None]], dim=1).cpu()

    def tables(self, records: EncodedRecords, values: Tensor, states: States) -> tuple[Array, list[Array]]:
        """All rewards ``[B, N, K + 1]``; scores and lengths ``[B, N]``, and the prompts' coefficients ``[B, K]``."""
        sizes = [len(item.ids) for item in records.items]
        scores = np.asarray([score for item in records.items for score in item.scores], dtype=np.float64)
        lengths = np.asarray([float(len(ids)) for item in records.items for ids in item.ids])
        with torch.no_grad():
            coefficients = self._opened.coefficients(states.prompts.to(self._opened.transform.device))
        labels = [pad_rows(scores, sizes), pad_rows(lengths, sizes), coefficients.double().cpu().numpy()]
        return pad_rows(values.double().numpy(), sizes), labels

    def figures(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Ranking by the overall reward; what each attribute alone ranks right, and its mean coefficient."""
        scores, lengths, coefficients = labels
        figures = ranking_metrics(predictions[..., -1], scores, lengths).plain()
        for column, name in enumerate(self._loss.attributes):
            figures[f"{name}_accuracy"] = compute_accuracy(compute_gaps(predictions[..., column], scores))
            figures[f"{name}_coefficient"] = float(coefficients[:, column].mean())
        return figures

    def settle(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """The attributes as they were, and the overall objective with its scale; ``reliability.png``."""
        overall = predictions[..., -1]
        gaps = compute_gaps(overall, labels[0])
        scale = calibrate_rewards(overall, gaps, folder)
        *attributes, last = self.objectives()
        return [*attributes, last.model_copy(update={"calibration": scale})]

    def objectives(self) -> list[Objective]:
        """The attributes, and the overall one in the column after them."""
        return [*self._attributes, Objective(name=self._run.objective, column=len(self._attributes))]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """The first answers, whose prompt's end is known, of the held-out prompts, else of the training ones."""
        source: list[Record] = next(iter(data.eval.values()), data.train)
        found = (Probe(messages=list(conversation)) for record in source for conversation in record.conversations[:2])
        known = (probe for probe in found if self._renderer.render_conversation(probe.messages).shared)
        return [probe for probe, _ in zip(known, range(count), strict=False)]

    def save(self, folder: Path) -> None:
        """The gate's file."""
        write_gate(self._opened, folder)

    @property
    def _opened(self) -> GatedHead:
        assert self._gate is not None, "the gate is made when it learns"
        return self._gate

    def _reference(self) -> EncodedRecords:
        assert self._loss.reference is not None
        data = Data(root=self._run.data.root, train=[self._loss.reference], holdout=0)
        return EncodedRecords(load_data(data).train, self._renderer)

    def _transform(self, rewards: Tensor, verbosity: int) -> Tensor:
        found = choose_penalties(rewards.double().cpu().numpy(), verbosity, self._loss.threshold)
        for name, penalty in zip(self._loss.attributes, found, strict=True):
            log.info("%s: %g of %s is taken out", name, penalty, self._loss.verbosity)
        return make_verbosity_transform(found, verbosity)


def read_attributes(run: RewardRun) -> list[Objective]:
    """The objectives of the multi-attribute model that a gate stands on, in the order of the head's rows.

    Raises:
        RecipeError: there is none, it is gated itself, or a row of its head is no objective.
        ArtifactError: the folder is no artifact.
    """
    if run.model.start is None:
        raise RecipeError("model.start: a gate stands on an artifact of loss.method: attributes; name its folder")
    manifest = read_manifest(Path(run.model.start).expanduser())
    found = sorted(manifest.objectives, key=lambda each: each.column)
    if manifest.gated or manifest.kind != "reward" or [each.column for each in found] != list(range(len(found))):
        raise RecipeError(f"model.start: {manifest.name} has no row of the head for each objective, as a gate needs")
    return found
