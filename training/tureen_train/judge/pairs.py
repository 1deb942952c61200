"""Pairs to judge, made of records, and records with a judge's labels. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tureen.records.pairing import take_pair
from tureen.records.schema import Record
from tureen_train.judge.comparisons import Comparison, Judgement, make_comparison

TOOLS = "tools or template arguments, which a judge does not read"


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
        """What a judge that reads texts is asked about each record."""
        return [make_comparison(each) for each in self.records]


def make_unlabelled_pairs(records: Iterable[Record], with_tools: bool = False) -> UnlabelledPairs:
    """Pair all answers to each prompt, whatever their scores.

    Args:
        with_tools: whether the judge reads tools and template arguments.
    """
    pairs: list[Record] = []
    left_out = Counter[str]()
    for record in records:
        if not record.prompt:
            left_out["no common prompt"] += 1
        elif record.template_arguments and not with_tools:
            left_out[TOOLS] += 1
        elif len(record.answers) < 2:
            left_out["a prompt with one answer"] += 1
        else:
            pairs += [take_pair(record, *two) for two in combinations(range(len(record.answers)), 2)]
    return UnlabelledPairs(pairs, left_out)


@dataclass(frozen=True)
class LabelledPairs:
    """What a judge made of pairs.

    Attributes:
        records: the judged pairs in the order of the file, with the answers' shares of the win as scores, which sum to
            1. Ties are kept, with ½ and ½.
        left_out: the number of pairs and records that have no label, by reason.
        turned: the number of pairs whose label contradicts that of their file.
    """

    records: list[Record]
    left_out: Counter[str]
    turned: int

    @property
    def ordered(self) -> list[Record]:
        """The same pairs with the better answer first. ``meta["turned"]`` marks what contradicts its file."""
        return [each if each.scores[0] >= each.scores[1] else take_pair(each, 1, 0) for each in self.records]


def label_pairs(pairs: UnlabelledPairs, judged: Sequence[Judgement]) -> LabelledPairs:
    """Label pairs by a judge's verdicts. A pair without a verdict is left out and counted."""
    kept, left_out = [], Counter[str](pairs.left_out)
    for record, judgement in zip(pairs.records, judged, strict=True):
        if judgement.share is None:
            left_out[judgement.error] += 1
        else:
            against = (judgement.share - 0.5) * (record.scores[0] - record.scores[1]) < 0
            meta = {**record.meta, **({"turned": True} if against else {})}
            kept.append(replace(record, scores=(judgement.share, 1 - judgement.share), meta=meta))
    return LabelledPairs(kept, left_out, sum(bool(each.meta.get("turned")) for each in kept))
