"""Two answers in columns of their own, and a column that says which is better, or a score for each.

PKU-SafeRLHF, HelpSteer's preference sets, SHP, webgpt_comparisons, Chatbot Arena and others of this kind.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tureen.records.columns import Columns, is_empty
from tureen.records.draft import Draft
from tureen.records.fields import Fields, describe_type, read_rank, read_spelled_score
from tureen.records.joining import join_sides
from tureen.records.openings import read_opening, read_turns
from tureen.records.pair_scores import is_marked_tied
from tureen.records.schema import UNLABELLED, BadRecord

STEMS = "response|answer|output|completion|candidate|summary|conversation|human_ref|generation|reply|text"
SUFFIXES = (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B"))
INDEXED = ("better_response_id", "safer_response_id")
STRENGTHS = ("preference_strength", "overall_preference")  # HelpSteer: negative where the first is better
STRONGEST = 3
VERDICTS = (
    *("winner", "preference", "preferred", "choice", "better", "label", "labels", "selected", "chosen", "verdict"),
    *("preferred_response", "better_response", "comparison", "best", "pairwise", "pw"),
)
SCORES = ("score", "rating", "reward", "rank")
WINNERS = ("winner_model_{}", "winner_{}")
TIED = re.compile(r"(it'?s a )?(tie|tied|same|equal|both|neither|draw|none)(\b|_).*", re.IGNORECASE)
FIRST, SECOND = ("left", "first"), ("right", "second")


@dataclass(frozen=True)
class AnswerPair:
    """The two columns of answers, and the letters or numbers that tell them apart."""

    names: tuple[str, str]
    suffixes: tuple[str, str]


def find_answer_pair(fields: Fields) -> AnswerPair | None:
    """Find the two columns of answers of a record, if it has such."""
    for stem in STEMS.split("|"):
        for suffixes in SUFFIXES:
            for joint in ("_", "", "-"):
                first, second = (f"{stem}{joint}{suffix}" for suffix in suffixes)
                if (
                    first in fields
                    and second in fields
                    and not (suffixes == ("1", "2") and f"{stem}{joint}0" in fields)
                ):
                    return AnswerPair((first, second), suffixes)
    return None


def has_two_answers(fields: Fields) -> bool:
    """Whether a record has two columns of answers."""
    return find_answer_pair(fields) is not None


def read_two_answers(columns: Columns) -> Draft:
    """Read two answers with their verdict or scores. They are unlabelled if the record has neither.

    Raises:
        BadRecord: there is a third answer, a verdict is not understood, or verdict and scores contradict each other.
    """
    found = find_answer_pair(columns)
    if found is None:
        raise BadRecord("missing field", "there are no two columns of answers, as `response_a` and `response_b`")
    third = {"0": "2", "1": "3", "a": "c", "A": "C"}[found.suffixes[0]]
    if (name := found.names[0][: -len(third)] + third) in columns and not is_empty(columns.peek(name)):
        raise BadRecord("more than two answers", f"`{name}` is a third answer: put all into a list with scores")
    opening = read_opening(columns)
    sides = [read_turns(columns[name], name, user=False) for name in found.names]
    if not opening.turns and any(len(side) == 1 for side in sides):
        raise BadRecord("missing field", "no column holds the prompt: name it with --map COLUMN=prompt")
    values = [columns.peek(name) for name in found.names]
    prompt, answers = join_sides(opening.turns, opening.spelled, values, sides)
    verdict, scores = _read_verdict(columns, found), _read_scores(columns, found)
    safer = _read_index(columns, "safer_response_id", found)
    rated = {} if math.isnan(safer[0]) else {"safer": safer}
    told = ""
    if (verdict[0] - verdict[1]) * (scores[0] - scores[1]) < 0:
        told = "the scores of the two answers say otherwise than the verdict"
    judged = verdict if math.isnan(scores[0]) else scores
    if is_marked_tied(columns):
        if judged[0] != judged[1] and not math.isnan(judged[0]):
            told = "a mark says that it is a tie, and another column prefers an answer"
        judged = (0.5, 0.5) if math.isnan(judged[0]) else judged
    return Draft(prompt, answers, judged, attributes=rated, contradiction=told)


def _read_verdict(columns: Columns, pair: AnswerPair) -> tuple[float, float]:
    """Read scores from the column that judges the two answers, NaN if there is none."""
    if "better_response_id" in columns:
        return _read_index(columns, "better_response_id", pair)
    for name in STRENGTHS:
        if name in columns:
            return _read_strength(columns[name], name)
    for pattern in WINNERS:
        marks = [pattern.format(suffix) for suffix in pair.suffixes]
        if marks[0] in columns and marks[1] in columns:
            first, second = (_read_mark(columns[mark], mark) for mark in marks)
            if first and second:
                raise BadRecord("bad score", f"`{marks[0]}` and `{marks[1]}` are both 1")
            columns.get("winner_tie")
            return (0.5, 0.5) if first == second else (first, second)
    for name in VERDICTS:
        value = columns.peek(name)
        if isinstance(value, Mapping) and "selected" in value:  # Label Studio's short export
            return read_choice(columns[name]["selected"], name, pair)
        if name in columns and not isinstance(value, list | dict):
            return read_choice(columns[name], name, pair)
    return UNLABELLED, UNLABELLED


def _read_strength(value: object, name: str) -> tuple[float, float]:
    """Read HelpSteer's strength of a preference: −3 to 3, and 0 for a tie."""
    strength = read_spelled_score(value, name)
    if abs(strength) > STRONGEST:
        detail = f"`{name}` must be {-STRONGEST} (the first answer is much better) to {STRONGEST} (the second)"
        raise BadRecord("bad score", f"{detail}, is {strength:g}")
    return (UNLABELLED, UNLABELLED) if math.isnan(strength) else (max(0.0, -strength), max(0.0, strength))


def _read_mark(value: object, name: str) -> float:
    mark = float(value) if isinstance(value, bool) else read_spelled_score(value, name)
    if mark not in (0, 1):
        raise BadRecord("bad score", f"`{name}` must be 0 or 1, is {str(value)[:20]!r}")
    return mark


def _read_index(columns: Columns, name: str, pair: AnswerPair) -> tuple[float, float]:
    """Read PKU-SafeRLHF's number of an answer, from 0. Answers that are numbered from 1 are named by their numbers."""
    if name not in columns:
        return UNLABELLED, UNLABELLED
    index = columns[name]
    if pair.suffixes == ("1", "2") and not isinstance(index, bool) and str(index).removesuffix(".0") in pair.suffixes:
        return read_choice(index, name, pair)
    if pair.suffixes == ("1", "2") and str(index) not in ("-1", "-1.0"):
        raise BadRecord("bad score", f"`{name}` must be 1 or 2, or -1 for a tie, is {str(index)[:20]!r}")
    if isinstance(index, str) and index.strip() in ("0", "1", "-1"):
        index = int(index)
    if isinstance(index, bool) or index not in (0, 1, -1):
        raise BadRecord("bad score", f"`{name}` must be 0 or 1, or -1 for a tie, is {str(index)[:20]!r}")
    return (0.5, 0.5) if index == -1 else (1.0 - index, float(index))


def read_choice(value: object, name: str, pair: AnswerPair) -> tuple[float, float]:
    """Read scores from a value that names one answer: its letter, number or column, left or right, or a tie."""
    if pair.names[0].startswith("human_ref") and str(value).strip() in ("0", "1"):  # SHP: 1 says that A is preferred
        return (1.0, 0.0) if str(value).strip() == "1" else (0.0, 1.0)
    text = str(value).strip().lower() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    if TIED.fullmatch(text) or value == 0.5:
        return 0.5, 0.5
    bare = re.sub(r"[\s_.:\[\]()-]+", "", text)
    for scores, suffix, column, words in (
        ((1.0, 0.0), pair.suffixes[0], pair.names[0], FIRST),
        ((0.0, 1.0), pair.suffixes[1], pair.names[1], SECOND),
    ):
        suffix = suffix.lower()
        spelled = {suffix, f"model{suffix}", f"{column.lower().replace('_', '')}", f"assistant{suffix}", *words}
        spelled |= {f"{stem}{suffix}" for stem in STEMS.split("|")}
        if bare in spelled:
            return scores
    if bare == "0" and pair.suffixes == ("1", "2"):
        return 0.5, 0.5
    detail = f"`{name}` must name `{pair.names[0]}` or `{pair.names[1]}`, or a tie; is {describe_type(value)}"
    raise BadRecord("bad score", f"{detail} {str(value)[:20]!r}")


def _read_scores(columns: Columns, pair: AnswerPair) -> tuple[float, float]:
    """Read a score for each answer. The columns end as those of the answers do, or begin with their names.

    A rank counts downwards. Where only one answer has a score, it is not used and the report names the column.

    Raises:
        BadRecord: a score is no number.
    """
    for stem in SCORES:
        spellings = [[f"{stem}{joint}{suffix}" for suffix in pair.suffixes] for joint in ("_", "")]
        for names in (*spellings, [f"{name}_{stem}" for name in pair.names]):
            read = read_rank if stem == "rank" else read_spelled_score
            first, second = (read(columns.peek(name), name) for name in names)
            if not math.isnan(first) and not math.isnan(second):
                _ = [columns[name] for name in names]
                return first, second
    return UNLABELLED, UNLABELLED
