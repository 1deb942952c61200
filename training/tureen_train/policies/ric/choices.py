"""Which answers Rewards-in-Context learns from. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tureen_train.config import Cleaning, OnlineStage
from tureen_train.policies.ric.cleaning import find_excess
from tureen_train.policies.ric.desired import make_generator
from tureen_train.policies.ric.tagged_rows import TaggedRow
from tureen_train.policies.rollouts.contract import Reward, Sample
from tureen_train.policies.rollouts.rounds import Answered
from tureen_train.policies.rollouts.row_filters import find_fronts, reach_quantile
from tureen_train.policies.rollouts.selections import EMPTY, FAILED


@dataclass(frozen=True)
class FoundRows:
    """The answers of a stage that may be learnt, and how many may not, by reason."""

    rows: Sequence[TaggedRow]
    left_out: Counter[str]


def find_rows(answered: Answered, stage: str, clean: Cleaning | None = None) -> FoundRows:
    """Find the answers that may be learnt: those that have all rewards and some text.

    Args:
        answered: with normalised rewards.
        stage: what they are from.
        clean: also leaves answers out in which a text stands too often.
    """
    found = FoundRows([], Counter())
    rows: list[TaggedRow] = []
    for prompt, written, rewards in zip(answered.prompts, answered.written, answered.rewards, strict=True):
        for one, reward in zip(written, rewards, strict=True):
            fault = _find_fault(one.sample, reward, clean)
            if fault is None:
                rows.append(TaggedRow(prompt, one.sample, reward.values, stage, "all are kept"))
            else:
                found.left_out[fault] += 1
    return replace(found, rows=rows)


def _find_fault(sample: Sample, reward: Reward, clean: Cleaning | None) -> str | None:
    if reward.total is None:
        return FAILED
    if sample.empty:
        return EMPTY
    return find_excess(sample.text, clean) if clean else None


def keep_rows(rows: Sequence[TaggedRow], online: OnlineStage) -> list[TaggedRow]:
    """Keep the rows that ``online.keep`` says, each with the reason."""
    if online.keep == "all" or not rows:
        return list(rows)
    names = list(rows[0].obtained)
    table = np.array([[row.obtained[name] for name in names] for row in rows])
    if online.keep == "pareto":
        why = f"in the first {online.fronts} fronts of {', '.join(names)}"
        fronts = find_fronts(table, online.fronts)
        return [replace(row, why=why) for row, kept in zip(rows, fronts, strict=True) if kept]
    reached = [
        [name for name, there in zip(names, row, strict=True) if there]
        for row in reach_quantile(table, online.quantile)
    ]
    quantile = f"at or above the quantile {online.quantile:g}"
    return [replace(row, why=f"{', '.join(good)} {quantile}") for row, good in zip(rows, reached, strict=True) if good]


def draw_rows(rows: Sequence[TaggedRow], count: int, seed: str) -> list[TaggedRow]:
    """Draw at most ``count`` rows without replacement, in their order."""
    drawn = make_generator(seed).permutation(len(rows))[:count]
    return [rows[at] for at in sorted(drawn)]
