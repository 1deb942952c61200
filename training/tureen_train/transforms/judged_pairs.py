"""Pairs labelled by a language model, as RLPHF (arXiv 2310.11564) labels the pairs for its reward model."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tureen.messages import join_content
from tureen.records.pairing import take_pair
from tureen.records.schema import BadOption, Conversation, Record
from tureen_train.policies.rollouts.comparison_prompts import Comparison
from tureen_train.policies.rollouts.judge import JudgeCost
from tureen_train.policies.rollouts.wins import Judgement
from tureen_train.transforms.filters import TransformResult


@dataclass(frozen=True)
class UnlabelledPairs:
    """Pairs that a judge can read.

    Attributes:
        records: with two answers each.
        left_out: the number of records that a judge cannot read, by reason.
    """

    records: list[Record]
    left_out: Counter[str]

    @property
    def comparisons(self) -> list[Comparison]:
        """What the judge is asked about each record."""
        return [Comparison(each.prompt, *map(_write_answer, each.answers)) for each in self.records]


def describe_cost(cost: JudgeCost, price: str = "") -> str:
    """Say what judging costs at most.

    Args:
        price: of a million tokens that are read and written, as ``2.5/10``; empty if it is not known.

    Raises:
        BadOption: the price is not written so.
    """
    told = (
        f"requests: {cost.calls} (and {cost.known} that were judged before);"
        f" about {cost.tokens_in} tokens read, at most {cost.tokens_out} written"
    )
    if not price:
        return told
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", price)
    if found is None:
        raise BadOption(f"--price: write the prices of a million tokens read and written, as 2.5/10, not {price!r}")
    most = (cost.tokens_in * float(found[1]) + (cost.tokens_out or 0) * float(found[2])) / 1e6
    return f"{told}; at most about {most:.2f}"


def make_unlabelled_pairs(records: Iterable[Record]) -> UnlabelledPairs:
    """Pair all answers to each prompt, whatever their scores."""
    pairs: list[Record] = []
    left_out = Counter[str]()
    for record in records:
        if not record.prompt:
            left_out["no common prompt"] += 1
        elif record.template_arguments:
            left_out["tools or template arguments, which a judge does not read"] += 1
        elif len(record.answers) < 2:
            left_out["a prompt with one answer"] += 1
        else:
            pairs += [take_pair(record, *two) for two in combinations(range(len(record.answers)), 2)]
    return UnlabelledPairs(pairs, left_out)


def _write_answer(answer: Conversation) -> str:
    """Write a single turn as its text, and more turns with their roles."""
    if len(answer) == 1:
        return join_content(answer[0])
    return "\n\n".join(f"[{turn['role']}]\n{join_content(turn)}" for turn in answer)


def label_by_judge(pairs: UnlabelledPairs, judged: Sequence[Judgement]) -> TransformResult:
    """Make records of the judge's verdicts: the better answer first, with both shares of the win as scores.

    A pair without a verdict is left out and counted. Ties are kept; their scores are ½. If a verdict contradicts the
    label of the file, the record has ``meta["turned"]``.
    """
    kept, left_out = [], Counter[str](pairs.left_out)
    for record, judgement in zip(pairs.records, judged, strict=True):
        if judgement.share is None:
            left_out[judgement.error] += 1
        else:
            kept.append(_labelled(record, judgement.share))
    return TransformResult(kept, left_out)


def describe_wins(judged: Sequence[Judgement]) -> str:
    """Say how often the first and the second answer won, as RLPHF's evaluation does."""
    shares = [each.share for each in judged if each.share is not None]
    first, second = sum(share > 0.5 for share in shares), sum(share < 0.5 for share in shares)
    return f"the first answer is better: {first}, the second: {second}, ties: {len(shares) - first - second}"


def _labelled(record: Record, share: float) -> Record:
    ordered = take_pair(record, 0, 1) if share >= 0.5 else take_pair(record, 1, 0)
    against = share != 0.5 and ordered.scores[1] > ordered.scores[0]
    meta = {**ordered.meta, **({"turned": True} if against else {})}
    return replace(ordered, scores=(max(share, 1 - share), min(share, 1 - share)), meta=meta)
