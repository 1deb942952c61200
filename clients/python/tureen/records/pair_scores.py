"""The scores of a chosen and a rejected answer, in any of the spellings that public files have."""

import math
import re
from dataclasses import dataclass

from tureen.records.columns import Columns
from tureen.records.fields import read_score

WORDS = "score|rating|reward|avg_rating|average_rating|overall_score|mean_score|rm_score|preference_score"
SIDE_FIRST = re.compile(rf"(chosen|rejected)[_ .-]?({WORDS})s?", re.IGNORECASE)
SIDE_LAST = re.compile(rf"({WORDS})s?[_ .-]?(?:of_|for_)?(chosen|rejected)", re.IGNORECASE)
MARGINS = ("margin", "score_margin", "reward_margin", "score_diff", "margin_score")
TIES = ("is_tie", "tie")
OUTRIGHT, TIED = (1.0, 0.0), (0.5, 0.5)


@dataclass(frozen=True)
class PairScores:
    """Scores of chosen and rejected, and how they contradict the two names, if they do."""

    scores: tuple[float, float] = OUTRIGHT
    contradiction: str = ""


def read_pair_scores(columns: Columns) -> PairScores:
    """The scores of chosen and rejected: two columns, a list of two, a margin, or a mark of ties; else 1 and 0.

    Equal scores are a tie. Where one of the two is absent there are none.

    Raises:
        BadRecord: a score is no number.
    """
    for names in _score_columns(columns):
        scores = _both(columns, *names)
        if scores is not None:
            told = [f"`{columns.describe_name(name)}` {value:g}" for name, value in zip(names, scores, strict=True)]
            return PairScores(scores, " is below ".join(told) if scores[0] < scores[1] else "")
    for name in TIES:
        if columns.peek(name) is True:
            return PairScores(TIED)
    status = columns.peek("status")
    if isinstance(status, str) and status.strip().lower() == "tie":  # distilabel
        return PairScores(TIED)
    for name in MARGINS:
        margin = columns.peek(name)
        if isinstance(margin, int | float) and not isinstance(margin, bool):
            scores = OUTRIGHT if margin > 0 else TIED if margin == 0 else (0.0, 1.0)
            return PairScores(scores, f"`{name}` is {margin:g}" if margin < 0 else "")
    return PairScores()


def is_pair_score(name: str) -> bool:
    """Whether a column scores one side of a pair."""
    return bool(SIDE_FIRST.fullmatch(name) or SIDE_LAST.fullmatch(name))


def _score_columns(columns: Columns) -> list[tuple[str, str]]:
    """The two columns of each spelling that the record has."""
    found: dict[tuple[str, bool], dict[str, str]] = {}
    for name in columns:
        if first := SIDE_FIRST.fullmatch(name):
            found.setdefault((first[2].lower(), True), {})[first[1].lower()] = name
        elif last := SIDE_LAST.fullmatch(name):
            found.setdefault((last[1].lower(), False), {})[last[2].lower()] = name
    return [(each.get("chosen", ""), each.get("rejected", "")) for each in found.values()]


def _both(columns: Columns, chosen: str, rejected: str) -> tuple[float, float] | None:
    if any(isinstance(columns.peek(name), list | dict) for name in (chosen, rejected)):
        return None
    better, worse = (read_score(columns[name], name) if name else math.nan for name in (chosen, rejected))
    return None if math.isnan(better) or math.isnan(worse) else (better, worse)
