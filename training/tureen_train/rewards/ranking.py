"""Ranking: Bradley-Terry's loss over any number of answers (DSP, arXiv 2309.03126), and its optional terms."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tureen.records.schema import Record
from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import RankingLoss, RewardRun
from tureen_train.config.ranking import RandomCap
from tureen_train.measures.constraints import compute_token_gaps, draw_caps, sum_cap_losses, sum_pair_losses
from tureen_train.measures.margins import compute_cap_figures, select_pair_caps
from tureen_train.measures.metrics import Array, compute_gaps, compute_ranking_metrics
from tureen_train.records.run_data import RunData
from tureen_train.rewards.calibration import calibrate_rewards
from tureen_train.rewards.capped_records import encode_capped, pad_caps
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords, collate_answers, pad_table
from tureen_train.rewards.losses import find_comparable, normalise_scores, sum_imitation_losses
from tureen_train.rewards.probe_texts import choose_answer_probes
from tureen_train.runs.counted_trainer import Outcome
from tureen_train.runs.folder import find_cache


class RankingMethod:
    """Trains ``L_rank + L_cap + center · L_centre + lm_coefficient · L_LM``.

    Each is a mean: the first three over comparable pairs, the last over imitated texts. ``L_cap`` is PCRM's.
    """

    def __init__(self, run: RewardRun, renderer: Renderer) -> None:
        assert isinstance(run.loss, RankingLoss)
        self._loss = run.loss
        self._objective = run.objective
        self._renderer = renderer
        self._cache = find_cache(run)
        self.labels: Sequence[str] = ("scores", "lengths", *(["caps"] if run.loss.constraint else []))

    def encode(self, records: Iterable[Record]) -> EncodedRecords:
        """Encode each prompt's answers; with a constraint, also the cap of each pair."""
        if self._loss.constraint is None:
            return EncodedRecords(records, self._renderer)
        return encode_capped(records, self._renderer, self._loss.constraint, self._cache)

    def collate(self, items: Sequence[EncodedRecord], width: int) -> dict[str, Tensor]:
        """Make one batch: rows of answers, and the tables ``scores`` and ``lengths``, ``[B, width]`` each."""
        batch = collate_answers(items, width, self._renderer.tokenizer.pad_token_id)
        batch["lengths"] = pad_table([[float(len(ids)) for ids in item.ids] for item in items], width)
        if self._loss.constraint:
            batch["caps"] = pad_caps(items, width)
        if self._loss.lm_coefficient:
            batch["imitated"] = self._imitated(items, batch["attention_mask"])
        return batch

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The numbers of comparable pairs and of imitated texts, ``[2]``."""
        pairs = find_comparable(_flat(batch), batch["group"], batch["texts"]).sum()
        texts = batch["imitated"].any(1).sum() if "imitated" in batch else torch.zeros_like(pairs)
        return torch.stack([pairs, texts]).float()

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Compute the loss of one batch; the predictions are the rewards, in the shape of ``scores``."""
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            imitated=batch.get("imitated"),
            everywhere=self._loss.read == "span",
        )
        pairs, texts = counts.clamp(min=1)
        terms = {name: total / pairs for name, total in self._compared(output, batch, model.training).items()}
        if output.get("nll") is not None:
            imitation = sum_imitation_losses(output["nll"], batch["imitated"].any(1)) / texts
            terms["imitation"] = self._loss.lm_coefficient * imitation
        scores = batch["scores"]
        rewards = output["rewards"][:, 0].detach().float()
        laid = torch.full_like(scores, float("nan")).masked_scatter(_present(batch), rewards)
        loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, laid, {name: term.detach() for name, term in terms.items()})

    def _compared(self, output: Mapping[str, Tensor], batch: Mapping[str, Tensor], training: bool) -> dict[str, Tensor]:
        """The terms that become means over pairs, before they are divided by the number of pairs."""
        rewards = output["rewards"][:, 0]
        better, worse = find_comparable(_flat(batch), batch["group"], batch["texts"]).nonzero(as_tuple=True)
        if self._loss.read == "span":
            hold, ids, mask = self._loss.span_padding == "hold", batch["input_ids"], batch["attention_mask"]
            gaps, weights = compute_token_gaps(output["token_rewards"], ids, mask, better, worse, hold)
        else:
            gaps = (rewards[better] - rewards[worse])[:, None]
            weights = torch.ones_like(gaps)
        terms = {"ranking": sum_pair_losses(gaps, weights)}
        if self._loss.constraint:
            terms["constraint"] = sum_cap_losses(gaps, weights, self._caps(batch, better, worse, training))
        if self._loss.center:
            terms["centering"] = self._loss.center * (rewards[better] + rewards[worse]).square().sum()
        return terms

    def _caps(self, batch: Mapping[str, Tensor], better: Tensor, worse: Tensor, training: bool) -> Tensor:
        """The cap of each pair, ``[P]``. Random caps are drawn in training only, so that evaluation is repeatable."""
        if training and isinstance(self._loss.constraint, RandomCap):
            return draw_caps(self._loss.constraint, len(better)).to(better.device)
        row, column = _present(batch).nonzero(as_tuple=True)
        return batch["caps"][row[better], column[better], column[worse]]

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Ranking, margins, length bias and calibration errors; with a constraint also the gaps against their caps."""
        scores, lengths, *caps = labels
        found = compute_ranking_metrics(predictions, scores, lengths).plain()
        return (
            {**found, **compute_cap_figures(compute_gaps(predictions, scores), select_pair_caps(caps[0], scores))}
            if caps
            else found
        )

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Fit mean, deviation and temperature; draw ``reliability.png``."""
        gaps = compute_gaps(predictions, labels[0])
        scale = calibrate_rewards(predictions, gaps, folder)
        return [Objective(name=self._objective, calibration=scale)]

    def objectives(self) -> list[Objective]:
        """The reward, without calibration."""
        return [Objective(name=self._objective, calibration=None)]

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Take the first two answers of held-out prompts, else of training ones."""
        return choose_answer_probes(data, count)

    def _imitated(self, items: Sequence[EncodedRecord], mask: Tensor) -> Tensor:
        """The tokens to imitate, ``[M, T]``: the answers scored above the threshold, with ``lm_prompt`` all tokens."""
        kept = [
            score > self._loss.lm_threshold for item in items for score in normalise_scores(item.scores)
        ]  # NaN is above nothing
        starts = [0 if self._loss.lm_prompt else start for item in items for start in item.starts]
        after = torch.arange(mask.shape[1])[None, :] >= torch.tensor(starts)[:, None]
        return mask.bool() & after & torch.tensor(kept)[:, None]


def _present(batch: Mapping[str, Tensor]) -> Tensor:
    """Where the tables have an answer, ``[B, N]``."""
    return ~torch.isnan(batch["lengths"])


def _flat(batch: Mapping[str, Tensor]) -> Tensor:
    """The scores of the rows, ``[M]``."""
    return batch["scores"][_present(batch)]
