"""The scores of a chosen and a rejected answer, in the spellings of public files."""

import math
import re
from dataclasses import dataclass

from tureen.records.columns import Columns
from tureen.records.fields import NUMBER, read_spelled_score
from tureen.records.schema import BadRecord

WHOSE = "avg|average|mean|overall|total|final|aggregate|weighted|quality|judge|human|llm|rm|pm|reward|preference"
WORDS = (
    rf"(?:(?:{WHOSE})[_ .-]?)?(?:score|rating|reward|grade)(?:[_ .-]?(?:avg|average|mean))?"
    "|overall|votes|upvotes|elo|likert|rank(?:ing)?"
)
# the letters are those of InstructGPT's and StackLLaMA's code: y_w and y_l, response_j and response_k
BETTER = ("chosen", "winner", "winning", "better", "preferred", "win", "w", "j")
WORSE = ("rejected", "loser", "losing", "worse", "dispreferred", "lose", "l", "k")
SIDE = "|".join((*BETTER, *WORSE))
SIDE_FIRST = re.compile(rf"({SIDE})[_ .-]?({WORDS})s?", re.IGNORECASE)
SIDE_LAST = re.compile(rf"({WORDS})s?[_ .-]?(?:of_|for_)?({SIDE})", re.IGNORECASE)
RANK = re.compile(r"rank(?:ing)?", re.IGNORECASE)
JUDGED = "(?:score|rating|reward|grade|preference|quality|logit|vote)s?"
MARGIN = re.compile(
    rf"margin|delta|gap|difference|{JUDGED}[_ .-]?(?:margin|diff|difference|delta|gap)"
    rf"|(?:margin|diff|difference|delta|gap)[_ .-]?(?:of_|in_)?{JUDGED}",
    re.IGNORECASE,
)
NUMBERLESS = ("delta", "gap", "difference")  # names that a text about the two answers has, too
OWN_KEYS = ("overall_score", "score", "rating", "reward")  # of a side that is an object
BOTH = ("chosen", "rejected")
LISTS = ("scores", "score", "ratings", "rating", "rewards")
VERDICTS = ("winner", "preference", "preferred", "better", "verdict", "label")
STRENGTHS = ("preference_strength", "overall_preference", "strength")
TIES = ("is_tie", "tie", "is_tied", "is_draw")
ROUNDING = 1e-9
MARKS = {
    **dict.fromkeys(("true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "", "none"), False),
}
OUTRIGHT, TIED = (1.0, 0.0), (0.5, 0.5)


@dataclass(frozen=True)
class PairScores:
    """Scores of chosen and rejected, and how they contradict the two names, if they do."""

    scores: tuple[float, float] = OUTRIGHT
    contradiction: str = ""


def read_pair_scores(columns: Columns) -> PairScores:
    """Read the scores of both answers: two columns, a list of two, a margin, or a mark of ties; else 1 and 0.

    Equal scores are a tie. Where only one answer has a score, it is not used and the report names the column.

    Raises:
        BadRecord: a score is no number.
    """
    found = _read_scores(columns)
    if _is_tied(columns):
        if found is None or found.scores[0] == found.scores[1]:
            return found or PairScores(TIED)
        return PairScores(found.scores, "a mark says that it is a tie, and the scores differ")
    if found is not None:
        return found
    for name in VERDICTS:
        verdict = columns.peek(name).strip().lower() if isinstance(columns.peek(name), str) else ""
        if verdict in ("chosen", "rejected"):
            told = f"`{columns.describe_name(name)}` is {columns[name]}"
            return PairScores() if verdict == "chosen" else PairScores((0.0, 1.0), told)
    for name in STRENGTHS:
        if not isinstance(columns.peek(name), bool) and columns.peek(name) in (0, "0", "0.0"):
            _ = columns[name]
            return PairScores(TIED)
    for name in filter(is_margin, columns):
        margin = _read_margin(columns.peek(name), name)
        if not math.isnan(margin):
            scores = OUTRIGHT if margin > 0 else TIED if margin == 0 else (0.0, 1.0)
            return PairScores(scores, f"`{name}` is {margin:g}" if margin < 0 else "")
    return PairScores()


def _read_scores(columns: Columns) -> PairScores | None:
    """Read the scores of both sides from two columns, a list of two, or the sides' own objects; None without any."""
    if (own := _read_own(columns)) is not None:
        return own
    for word, names in _score_columns(columns):
        scores = _both(columns, *names)
        if scores is not None:
            told = [f"`{columns.describe_name(name)}` {value:g}" for name, value in zip(names, scores, strict=True)]
            if RANK.fullmatch(word):  # 1 is the best rank
                scores = -scores[0], -scores[1]
            joint = " is behind " if RANK.fullmatch(word) else " is below "
            return PairScores(scores, joint.join(told) if scores[0] < scores[1] else "")
    for name in LISTS:
        if (listed := _read_list(columns, name)) is not None:
            both = f"`{name}` has {listed[0]:g} for chosen and {listed[1]:g} for rejected"
            return PairScores(listed, both if listed[0] < listed[1] else "")
    return None


def is_pair_score(name: str) -> bool:
    """Whether a column scores one side of a pair."""
    return bool(SIDE_FIRST.fullmatch(name) or SIDE_LAST.fullmatch(name))


def is_margin(name: str) -> bool:
    """Whether a column holds the margin of the chosen answer. Only its sign is read."""
    return bool(MARGIN.fullmatch(name))


def _read_margin(value: object, name: str) -> float:
    if isinstance(value, bool | list | dict):
        return math.nan
    if name.lower() in NUMBERLESS and isinstance(value, str) and not NUMBER.fullmatch(value):
        return math.nan
    return read_spelled_score(value, name)


def _read_list(columns: Columns, name: str) -> tuple[float, float] | None:
    """Read the scores of both sides in one column: an object, or a list of two in the order of ``order``.

    If a column ``generations`` may have another order, only equal scores are used.
    """
    value = columns.peek(name)
    if isinstance(value, dict) and value.keys() == {"chosen", "rejected"}:
        given, order = [value["chosen"], value["rejected"]], ["chosen", "rejected"]
    elif isinstance(value, list) and len(value) == 2 and not any(isinstance(each, list | dict) for each in value):
        given, order = value, columns.peek("order")
    else:
        return None
    first, second = (read_spelled_score(each, f"{name}[{index}]") for index, each in enumerate(given))
    if math.isnan(first) or math.isnan(second):
        return None
    known = isinstance(order, list) and sorted(map(str, order)) == ["chosen", "rejected"]
    if not known and "generations" in columns and first != second:
        return None
    _ = columns[name]
    return _settle(second, first) if known and order[0] == "rejected" else _settle(first, second)


def _is_tied(columns: Columns) -> bool:
    """Whether a column says that neither side is better.

    Raises:
        BadRecord: a mark of ties is neither true nor false.
    """
    for name in ("status", *VERDICTS):  # status: distilabel
        if isinstance(columns.peek(name), str) and columns.peek(name).strip().lower() in ("tie", "tied"):
            return bool(columns[name])
    return is_marked_tied(columns)


def is_marked_tied(columns: Columns) -> bool:
    """Whether a column marks the two answers as equally good.

    Raises:
        BadRecord: a mark of ties is neither true nor false.
    """
    marked = False
    for name in TIES:
        text = str(columns.peek(name)).strip().lower()
        if text not in MARKS:
            raise BadRecord("bad score", f"`{name}` must be true or false, is {text[:20]!r}")
        marked = marked or MARKS[text]
    return marked


def _read_own(columns: Columns) -> PairScores | None:
    """Read the scores in the objects of the sides, as ``{"text": ..., "score": ...}``."""
    sides = [columns.peek(name) for name in BOTH]
    for key in OWN_KEYS:
        if all(isinstance(side, dict) and "role" not in side and side.get(key) is not None for side in sides):
            read = [read_spelled_score(side[key], f"{name}.{key}") for side, name in zip(sides, BOTH, strict=True)]
            scores = _settle(*read)
            told = f"`chosen.{key}` {scores[0]:g} is below `rejected.{key}` {scores[1]:g}"
            return PairScores(scores, told if scores[0] < scores[1] else "")
    return None


def _score_columns(columns: Columns) -> list[tuple[str, tuple[str, str]]]:
    """List the word and the two columns of each spelling in the record."""
    found: dict[tuple[str, bool, int], dict[bool, str]] = {}
    for name in columns:
        if first := SIDE_FIRST.fullmatch(name):
            word, side = first[2].lower(), first[1].lower()
        elif last := SIDE_LAST.fullmatch(name):
            word, side = last[1].lower(), last[2].lower()
        else:
            continue
        names = BETTER if side in BETTER else WORSE
        found.setdefault((word, bool(first), names.index(side)), {})[side in BETTER] = name
    return [(word, (each.get(True, ""), each.get(False, ""))) for (word, _, _), each in found.items()]


def _both(columns: Columns, chosen: str, rejected: str) -> tuple[float, float] | None:
    """Read the scores of both sides. None if one is missing: the columns stay unused, and the report names them."""
    better, worse = (read_spelled_score(columns.peek(name), name) if name else math.nan for name in (chosen, rejected))
    if math.isnan(better) or math.isnan(worse):
        return None
    _ = columns[chosen], columns[rejected]
    return _settle(better, worse)


def _settle(better: float, worse: float) -> tuple[float, float]:
    """Make scores equal that differ only by rounding, as 0.3 and 0.1 + 0.2."""
    return (better, better) if math.isclose(better, worse, rel_tol=ROUNDING) else (better, worse)
