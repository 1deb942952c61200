"""Lists of answers to one prompt: objects with a text and a score or rank each, or texts beside a list of scores.

The lists of UltraFeedback, Nectar, StackExchange's preferences, and of samplers and judges.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tureen.records.columns import Columns, is_absent, is_empty
from tureen.records.draft import Draft
from tureen.records.fields import Fields, check_type, read_rank, read_spelled_score
from tureen.records.joining import join_sides
from tureen.records.openings import read_opening, read_turns
from tureen.records.schema import UNLABELLED, BadRecord

LISTS = ("completions", "answers", "responses", "candidates", "generations", "outputs")
TEXTS = ("response", "answer", "text", "content", "output", "completion", "generation", "generated_text")
SCORES = ("overall_score", "score", "rating", "reward", "pm_score", "fine-grained_score")
OWN_SCORES = (*SCORES, "rank")  # of several the first that any answer has
LISTED_SCORES = ("scores", "score", "ratings", "rating", "rewards", "reward", "ranks", "rank")
RANKS = ("rank", "ranks")


def find_list(fields: Fields) -> str | None:
    """Find the column that lists the answers."""
    return next((name for name in LISTS if isinstance(fields.get(name), list) and fields[name]), None)


def has_answer_list(fields: Fields) -> bool:
    """Whether a column lists objects with a text each, or texts beside a list of scores."""
    name = find_list(fields)
    if name is None:
        return False
    given = fields[name]
    if all(isinstance(each, Mapping) and any(key in each for key in TEXTS) for each in given):
        return "role" not in given[0]
    return all(isinstance(each, str | list) for each in given) and (
        name == "candidates" or any(isinstance(fields.get(each), list) for each in LISTED_SCORES)
    )


def read_answer_list(columns: Columns) -> Draft:
    """Read all answers of a list with their scores. A larger rank is a lower score.

    Raises:
        BadRecord: an answer has no text, a score is no number, or the lists differ in length.
    """
    name = find_list({each: columns.peek(each) for each in columns})
    if name is None:
        raise BadRecord("missing field", f"there is no list of answers: {', '.join(LISTS)}")
    given = columns[name]
    opening = read_opening(columns)
    if not opening.turns:
        raise BadRecord("missing field", "no column holds the prompt: name it with --map COLUMN=prompt")
    if all(isinstance(each, Mapping) and "role" not in each for each in given):
        sides = [_text_of(each, f"{name}[{index}]") for index, each in enumerate(given)]
        scored = next((key for key in OWN_SCORES if any(not is_absent(each.get(key)) for each in given)), None)
        scores, rated = _own_scores(given, name, scored), _aspects(given)
        told = _compare_ranks(given, name, scores) if scored not in (None, *RANKS) else ""
        _leave_keys(columns, name, scored, rated)
    else:
        sides, scores, rated, told = given, _listed_scores(columns, len(given)), {}, ""
    turns = [read_turns(side, f"{name}[{index}]", user=False) for index, side in enumerate(sides)]
    prompt, answers = join_sides(opening.turns, opening.spelled, sides, turns)
    return Draft(prompt, answers, scores, attributes=rated, contradiction=told)


def _text_of(value: Mapping[str, Any], where: str) -> Any:
    key = _text_key(value)
    if key is None and any(each in value for each in TEXTS):
        return ""  # a table fills up shorter lists with nulls
    if key is None:
        raise BadRecord("missing field", f"`{where}` has no text: {', '.join(TEXTS)}")
    return value[key]


def _text_key(value: Mapping[str, Any]) -> str | None:
    return next((each for each in TEXTS if not is_absent(value.get(each))), None)


def _own_scores(given: Sequence[Mapping[str, Any]], name: str, key: str | None) -> tuple[float, ...]:
    """Read each answer's score under a key. Scores are NaN where there is no key."""
    if key is None:
        return (UNLABELLED,) * len(given)
    read = read_rank if key in RANKS else read_spelled_score
    return tuple(read(each.get(key), f"{name}[{index}].{key}") for index, each in enumerate(given))


def _compare_ranks(given: Sequence[Mapping[str, Any]], name: str, scores: Sequence[float]) -> str:
    """Describe how the answers' ranks contradict their scores. Empty if they do not, or if there are no ranks."""
    ranks = _own_scores(given, name, "rank" if any(not is_absent(each.get("rank")) for each in given) else None)
    places = range(len(scores))
    if any(scores[i] > scores[j] and ranks[i] < ranks[j] for i in places for j in places):
        return f"the scores in `{name}` order the answers otherwise than the ranks"
    return ""


def _leave_keys(columns: Columns, name: str, scored: str | None, rated: Mapping[str, Any]) -> None:
    """Note the keys of the answers that hold a value and were not read as text, score or rating."""
    held: dict[str, None] = {}
    for each in columns[name]:
        used = {_text_key(each), scored}
        if _are_ratings(each.get("annotations"), rated):
            used.add("annotations")
        held |= {key: None for key, value in each.items() if key not in used and not is_empty(value)}
    for key in held:
        columns.leave_key(name, key)


def _listed_scores(columns: Columns, count: int) -> tuple[float, ...]:
    for key in LISTED_SCORES:
        values = columns.peek(key)
        if not isinstance(values, list):
            continue
        read = read_rank if key in RANKS else read_spelled_score
        found = tuple(read(value, f"{key}[{index}]") for index, value in enumerate(columns[key]))
        if len(found) != count:
            raise BadRecord("lengths differ", f"there are {count} answers and `{key}` has {len(found)}")
        return found
    return (UNLABELLED,) * count


def _are_ratings(annotations: object, rated: Mapping[str, Any]) -> bool:
    """Whether all annotations of an answer are ratings that were read, or say that there is none."""
    return isinstance(annotations, Mapping) and all(
        name in rated or (isinstance(each, Mapping) and "Rating" in each) for name, each in annotations.items()
    )


def _aspects(given: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, ...]]:
    """Read UltraFeedback's annotations: aspect → a rating for each answer."""
    judged = [each.get("annotations") for each in given]
    if not all(isinstance(each, Mapping) for each in judged):
        return {}
    aspects = dict.fromkeys(name for each in judged for name in each or ())
    found = {}
    for name in aspects:
        ratings = [check_type(each, dict, "annotations").get(name) for each in judged]
        if all(isinstance(each, Mapping) and "Rating" in each for each in ratings):
            found[name] = tuple(
                read_spelled_score(each["Rating"], f"annotations.{name}.Rating") for each in ratings if each
            )
    return {name: values for name, values in found.items() if not all(map(math.isnan, values))}
