"""Preference pairs as ids, with what training adds to them: the caps of PCRM, and the reference's log-probabilities."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tureen.records.schema import Record
from tureen_core.template import Renderer
from tureen_train.config.policies import DpoPolicy
from tureen_train.config.ranking import CosineCap, LengthCap
from tureen_train.measures.constraints import (
    compute_angular_similarity,
    compute_caps,
    compute_length_ratio,
)
from tureen_train.networks.answer_batch import Layout, lay_out_answers
from tureen_train.networks.sentence_encoder import add_similarity, open_encoder, read_cosines
from tureen_train.policies.encoding import EncodedAnswer, encode_answers, warn_of_unlike_openings
from tureen_train.records.encoding_report import EQUAL, EncodingReport

TOO_LONG = "with a prompt longer than policy.max_length"
BARE = "without a prompt"


@dataclass(frozen=True)
class EncodedPreference:
    """Two answers to one prompt.

    Attributes:
        chosen: the better answer.
        rejected: the worse one; both begin at the same token.
        cap: δ of PCRM; NaN without a constraint.
        references: log π_ref of the chosen and of the rejected answer, in nats; NaN until they are computed.
    """

    chosen: EncodedAnswer
    rejected: EncodedAnswer
    cap: float = float("nan")
    references: tuple[float, float] = (float("nan"), float("nan"))


class Preferences(Dataset[EncodedPreference]):
    """Encoded pairs in memory.

    Args:
        items: the pairs.
        report: what became of the records' pairs.

    Attributes:
        references: ``[P, 2]`` float64, log π_ref of each pair's answers; NaN until they are set.
    """

    def __init__(self, items: Sequence[EncodedPreference], report: EncodingReport) -> None:
        self.items = list(items)
        self.report = report
        self.references = torch.full((len(items), 2), float("nan"), dtype=torch.float64)

    def digest(self) -> str:
        """A hash of all ids, in 16 hex digits."""
        total = hashlib.sha256()
        for item in self.items:
            total.update(repr([(each.start, each.ids) for each in (item.chosen, item.rejected)]).encode())
        return total.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedPreference:
        chosen, rejected = self.references[index].tolist()
        return replace(self.items[index], references=(chosen, rejected))


def encode_preferences(records: Iterable[Record], renderer: Renderer, equal: bool = False) -> Preferences:
    """Encode each comparable pair, without caps.

    Texts are cut at the right, to the reading's ``max_length``. A pair whose prompt alone is so long is left out.

    Args:
        equal: keep the pairs that are equal after the cut.

    Raises:
        BadRecord: the chat template does not render a record's turns or tools.
    """
    return _encode(records, renderer, None, equal)


def encode_training_pairs(records: Iterable[Record], renderer: Renderer, policy: DpoPolicy, cache: Path) -> Preferences:
    """Encode each comparable pair with its cap, but for those that are equal after the cut.

    Args:
        cache: where the sentence vectors of a cosine are kept.

    Raises:
        BadRecord: the chat template does not render a record's turns or tools.
        BaseError: the sentence encoder is not installed.
        RecipeError: a record has cosines of another number of answers.
    """
    if isinstance(policy.constraint, CosineCap):
        records = add_similarity(records, open_encoder(policy.constraint.encoder, policy.constraint.pooling), cache)
    return _encode(records, renderer, policy, equal=False)


def _encode(records: Iterable[Record], renderer: Renderer, policy: DpoPolicy | None, equal: bool) -> Preferences:
    items: list[EncodedPreference] = []
    left_out, truncated = {BARE: 0, TOO_LONG: 0, EQUAL: 0}, 0
    for record in records:
        answers = encode_answers(renderer, record) if record.prompt else []
        for better, worse in record.pairs:
            if not answers:
                left_out[BARE] += 1
                continue
            pair = _join(answers[better], answers[worse])
            if pair.chosen.start >= renderer.reading.max_length:
                left_out[TOO_LONG] += 1
            elif pair.chosen.ids == pair.rejected.ids and not equal:
                left_out[EQUAL] += 1
            else:
                items.append(replace(pair, cap=_find_cap(policy, record, better, worse, pair)))
                truncated += pair.chosen.truncated + pair.rejected.truncated
    warn_of_unlike_openings([each for item in items for each in (item.chosen, item.rejected)])
    return Preferences(items, EncodingReport("pairs", len(items), left_out, truncated))


def _join(better: EncodedAnswer, worse: EncodedAnswer) -> EncodedPreference:
    """Make a pair whose answers begin where the first of the two texts leaves the prompt, as TRL does."""
    start = min(better.start, worse.start)
    return EncodedPreference(replace(better, start=start), replace(worse, start=start))


def _find_cap(policy: DpoPolicy | None, record: Record, better: int, worse: int, pair: EncodedPreference) -> float:
    """Find δ of a pair. Similarity of lengths counts the tokens after the texts diverge, as PCRM does."""
    if policy is None or policy.constraint is None:
        return float("nan")
    similarity: Any = 1.0
    if isinstance(policy.constraint, LengthCap):
        similarity = compute_length_ratio(pair.chosen.ids, pair.rejected.ids)
    elif isinstance(policy.constraint, CosineCap):
        cosine = read_cosines(record)[better, worse]
        # PCRM's DPO takes the raw cosine, and a negative one would give a negative cap
        similarity = compute_angular_similarity(cosine) if policy.cosine == "angle" else max(0.0, float(cosine))
    return float(compute_caps(policy.constraint, similarity))


def collate_preferences(items: Sequence[EncodedPreference], pad: int, layout: Layout) -> dict[str, Any]:
    """Make a batch of B pairs.

    Returns:
        ``answers``, an :class:`AnswerBatch` of all chosen and then all rejected answers; ``input_ids [2B, T]``, its
        ids; ``references [B, 2]`` float64; ``lengths [B, 2]`` float32, the answers' numbers of tokens; and ``caps [B]``
        float32.
    """
    answers = [item.chosen for item in items] + [item.rejected for item in items]
    prompts: dict[tuple[int, ...], int] = {}
    groups = [prompts.setdefault(each.ids[: each.start], len(prompts)) for each in answers]
    batch = lay_out_answers([each.ids for each in answers], [each.start for each in answers], groups, pad, layout)
    return {
        "input_ids": batch.ids,
        "references": torch.tensor([item.references for item in items], dtype=torch.float64),
        "lengths": batch.lengths.view(2, -1).T.float(),
        "caps": torch.tensor([item.cap for item in items]),
        "answers": batch,
    }


def set_references(sets: Iterable[Preferences], values: Iterable[Tensor]) -> None:
    """Set the reference's log-probabilities ``[P, 2]`` of several sets of pairs.

    Raises:
        ValueError: a set has another number of pairs than its values.
    """
    for own, each in zip(sets, values, strict=True):
        if each.shape != own.references.shape:
            raise ValueError(f"references of {list(each.shape)} do not fit {len(own)} pairs")
        own.references = each.double()
