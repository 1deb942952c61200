"""Exports of annotation tools: Argilla's records and Label Studio's tasks, with the votes of their annotators."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tureen.records.columns import Columns, is_absent, is_empty
from tureen.records.draft import Draft
from tureen.records.fields import Fields, check_type
from tureen.records.openings import read_template_arguments, read_tool_descriptions
from tureen.records.rated_forms import read_rated_response
from tureen.records.schema import BadRecord
from tureen.records.two_answers import AnswerPair, find_answer_pair, read_choice, read_two_answers

SUBMITTED = ("submitted", "completed", None)


def read_label_studio(columns: Columns) -> Draft:
    """Read a task with its annotations: a selection between two texts, or ratings of one text.

    Cancelled annotations do not count. If an annotation is the ground truth, it alone counts.
    """
    given = [each for each in columns["annotations"] if isinstance(each, Mapping) and not each.get("was_cancelled")]
    truths = [each for each in given if each.get("ground_truth")]
    results = [result for each in truths or given for result in each.get("result") or () if isinstance(result, Mapping)]
    answers: dict[str, list[Any]] = {}
    for result in results:
        for value in _label_studio_values(result):
            answers.setdefault(str(result.get("from_name")), []).append(value)
    return _read_task(columns, "data", answers)


def read_argilla(columns: Columns) -> Draft:
    """Read a record with its fields and the responses. Suggestions count if there are no responses."""
    asked: dict[str, list[Any]] = {}
    for name, given in _by_question(columns.get("responses"), "responses"):
        asked.setdefault(name, []).extend(each.get("value") for each in given or () if _is_submitted(each))
    for name, given in _by_question(columns.get("suggestions"), "suggestions"):
        if not asked.get(name) and isinstance(given, Mapping):
            asked[name] = [given.get("value")]
    return _read_task(columns, "fields", asked)


def read_flat_argilla(columns: Columns) -> Draft:
    """Read Argilla's table: a column for each field, and columns for each question's responses and suggestion."""
    asked, fields = {}, {}
    for name in columns:
        question, _, kind = name.partition(".")
        if kind == "responses":
            given, states = columns[name], columns.peek(f"{question}.responses.status")
            kept = zip(given, states if isinstance(states, list) else [None] * len(given), strict=False)
            asked[question] = [value for value, state in kept if state in SUBMITTED]
        elif kind == "suggestion" and not asked.get(question):
            asked.setdefault(question, [columns[name]])
        elif _is_answered(columns.peek(name)):
            asked[name] = [each.get("value") for each in columns[name] if _is_submitted(each)]
        elif not kind and isinstance(columns.peek(name), str | list | dict):
            fields[name] = columns.peek(name)
    inner = Columns(fields)
    draft = _read_votes(inner, asked)
    for name in fields.keys() - inner.unused.keys():
        _ = columns[name]
    return draft


def is_flat_argilla(fields: Fields) -> bool:
    """Whether a column holds the responses to a question."""
    return any(name.endswith(".responses") or _is_answered(fields[name]) for name in fields)


def _by_question(given: object, name: str) -> Iterable[tuple[str, Any]]:
    """List each question with its responses. Argilla 1 lists the annotators with all their responses."""
    if not isinstance(given, list):
        return check_type(given or {}, dict, name).items()
    found: list[tuple[str, Any]] = []
    for each in given:
        values = check_type(each, dict, name).get("values")
        if isinstance(values, Mapping):
            said = {question: value for question, value in values.items() if isinstance(value, Mapping)}
            found += [(question, [{**value, "status": each.get("status")}]) for question, value in said.items()]
        elif "question_name" in each:
            found.append((str(each["question_name"]), each))
    return found


def _is_answered(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and {"user_id", "value", "status"} <= each.keys() for each in value)
    )


def _is_submitted(response: object) -> bool:
    return isinstance(response, Mapping) and response.get("status") in SUBMITTED


def _label_studio_values(result: Mapping[str, Any]) -> Iterable[Any]:
    value = result.get("value")
    if not isinstance(value, Mapping):
        return []
    if result.get("type") == "pairwise":
        return [value.get("selected")]
    if result.get("type") == "rating":
        return [value.get("rating")]
    return value.get("choices") or []


def _read_task(columns: Columns, name: str, asked: Mapping[str, Sequence[Any]]) -> Draft:
    """Make a draft of the texts in the object of a column. A field that no reader took is told or refused by name."""
    inner = Columns({field: value for field, value in columns[name].items() if not is_absent(value)})
    draft = _read_votes(inner, asked)
    tools, arguments = read_tool_descriptions(inner), read_template_arguments(inner)
    for field in inner.unused:
        if not is_empty(inner.peek(field)):
            columns.leave_field(name, field)
    return replace(draft, tools=tools, chat_template_kwargs=arguments)


def _read_votes(fields: Columns, asked: Mapping[str, Sequence[Any]]) -> Draft:
    """Make a draft of a task's texts and votes: two answers, or one answer with ratings."""
    known = {name: [value for value in values if not is_absent(value)] for name, values in asked.items()}
    pair = find_answer_pair(fields)
    if pair is None:
        numbers = {name: values for name, values in known.items() if values and all(map(_is_number, values))}
        if not numbers:
            raise BadRecord("no verdict", "there are neither two answers nor ratings of one in this export")
        rated = {name: math.fsum(values) / len(values) for name, values in numbers.items()}
        fields.put("attributes", rated)
        return read_rated_response(fields)
    votes = [_vote(values, name, pair) for name, values in known.items() if values]
    counted = [vote for vote in votes if vote is not None]
    if any(known.values()) and not counted:
        detail = f"what annotators said ({', '.join(known)}) names neither `{pair.names[0]}` nor `{pair.names[1]}`"
        raise BadRecord("no verdict", detail)
    for suffix, score in zip(pair.suffixes, counted[0], strict=True) if counted else ():
        fields.put(f"score_{suffix}", score)
    return read_two_answers(fields)


def _vote(values: Sequence[Any], name: str, pair: AnswerPair) -> tuple[float, float] | None:
    """Count the votes for each of two answers. A tie is half a vote each. None if the question asks another thing."""
    try:
        votes = [read_choice(_first_of(value), name, pair) for value in values]
    except BadRecord:
        return None
    return math.fsum(first for first, _ in votes), math.fsum(second for _, second in votes)


def _first_of(value: Any) -> Any:
    """Return the first of a ranking, or ``tie`` if two are first. Other values stay as they are."""
    if not isinstance(value, list) or not value:
        return value
    if all(isinstance(each, Mapping) and "rank" in each for each in value):
        best = min(each["rank"] for each in value)
        first = [each.get("value") for each in value if each["rank"] == best]
        return first[0] if len(first) == 1 else "tie"
    return value[0]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
