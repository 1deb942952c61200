"""Agreement of labels: of judges, reward models and people on the same pairs.

A verdict is that the first answer is better, that the second is, or a tie. The rule for ties: two verdicts that are
equal agree, also two ties; a tie and a decision agree half; two opposite decisions do not agree. ``decided`` leaves out
the pairs that either side ties.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tureen.records.pairing import take_pair
from tureen.records.schema import UNLABELLED, Record
from tureen_train.judge.comparisons import Judgement
from tureen_train.measures.agreement import compute_symmetric_kappa
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval, estimate_share
from tureen_train.measures.metrics import Array

Statistic = Callable[[Array, Array], float]
PairKey = tuple[str, str, str]  # the prompt's key, and both answers in one order for all files


@dataclass(frozen=True)
class PairLabels:
    """The verdicts on pairs.

    Attributes:
        verdicts: by pair: 1 if its first answer in the key's order is better, -1 if the second is, 0 for a tie.
        records: the pairs, each with the answers in the key's order and no score, for a judge to read.
        unlabelled: the number of pairs in the file without a label.
    """

    verdicts: Mapping[PairKey, float]
    records: Mapping[PairKey, Record]
    unlabelled: int = 0


def collect_labels(records: Iterable[Record]) -> PairLabels:
    """Collect the labels of all pairs of answers to each prompt.

    A pair that stands several times, as of several annotators, has the verdict of most of them, or a tie.
    """
    votes: defaultdict[PairKey, float] = defaultdict(float)
    kept: dict[PairKey, Record] = {}
    unlabelled = 0
    for record in records:
        for one, other in combinations(range(len(record.answers)), 2):
            gap = record.scores[one] - record.scores[other]
            if math.isnan(gap):
                unlabelled += 1
                continue
            key, turned = _make_key(record, one, other)
            votes[key] += -np.sign(gap) if turned else np.sign(gap)
            two = take_pair(record, *((other, one) if turned else (one, other)))
            kept.setdefault(key, replace(two, scores=(UNLABELLED, UNLABELLED), meta={}, attributes={}))
    return PairLabels({key: float(np.sign(vote)) for key, vote in votes.items()}, kept, unlabelled)


def _make_key(record: Record, one: int, other: int) -> tuple[PairKey, bool]:
    """Make the key of two answers, and tell whether it turns them."""
    texts = [json.dumps(list(record.answers[place]), sort_keys=True) for place in (one, other)]
    low, high = sorted(texts)
    return (record.prompt_key, low, high), texts[0] != low


def read_verdicts(keys: Sequence[PairKey], judged: Sequence[Judgement]) -> dict[PairKey, float]:
    """Read a judge's verdicts on pairs in the order of their keys; those without a verdict are left out."""
    return {
        key: float(np.sign(each.share - 0.5)) for key, each in zip(keys, judged, strict=True) if each.share is not None
    }


def measure_label_agreement(first: Mapping[PairKey, float], second: Mapping[PairKey, float]) -> dict[str, Figure]:
    """Measure the agreement of two sets of verdicts on the pairs that both have.

    Returns:
        ``agreement``: the mean credit by the rule above. ``decided``: the share of equal verdicts among the pairs that
        neither ties. ``kappa``: Cohen's kappa of the three verdicts, with each pair in both orders, so that it does
        not depend on which answer stands first. ``first_ties`` and ``second_ties``: the shares of ties. The intervals
        are those of a bootstrap over prompts, and of shares Wilson's where no prompt has two pairs, which also hold
        where all are alike. NaN means that nothing is left to compute it from.
    """
    common = sorted(first.keys() & second.keys())
    owners = Counter(key[0] for key in common)
    one = np.array([first[key] for key in common], dtype=np.float64)
    other = np.array([second[key] for key in common], dtype=np.float64)
    owner = np.repeat(np.arange(len(owners)), list(owners.values()))

    def estimate(statistic: Statistic, n: int) -> Figure:
        def drawn(places: Places) -> float:
            often = np.bincount(places, minlength=len(owners))[owner]
            return statistic(np.repeat(one, often), np.repeat(other, often))

        return bootstrap_interval(drawn, len(owners), n)

    def estimate_credits(credits: Array, statistic: Statistic) -> Figure:
        if len(owners) == len(common):
            return estimate_share(credits.tolist())
        return estimate(statistic, len(credits))

    decided = (one == other)[(one != 0) & (other != 0)].astype(np.float64)
    return {
        "agreement": estimate_credits(1 - np.abs(one - other) / 2, compute_credit),
        "decided": estimate_credits(decided, compute_decided),
        "kappa": estimate(compute_symmetric_kappa, len(common)),
        "first_ties": estimate(lambda x, _: _mean(x == 0), len(common)),
        "second_ties": estimate(lambda _, y: _mean(y == 0), len(common)),
    }


def compute_credit(first: Array, second: Array) -> float:
    """Compute the mean credit of verdicts [P]: 1 for equal ones, ½ for a tie against a decision, else 0."""
    return _mean(1 - np.abs(first - second) / 2)


def compute_decided(first: Array, second: Array) -> float:
    """Compute the share of equal verdicts among the pairs that neither ties; NaN if there are none."""
    chosen = (first != 0) & (second != 0)
    return _mean(first[chosen] == second[chosen])


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan
