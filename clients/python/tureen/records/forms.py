"""The public forms of preference data: which columns each has, what tells it from others, and what reads it.

A form is known by its columns. Columns that change the text (system, history, input, tools, ...) are rendered, or the
record is refused. A column that nobody reads stays in the record's ``meta``, and the report of a reading counts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tureen.records import (
    alpaca_forms,
    answer_lists,
    dsp_forms,
    exports,
    pair_forms,
    pair_verdict,
    rated_forms,
    stepwise,
    summary_forms,
    two_answers,
)
from tureen.records.columns import Columns, unpack_columns
from tureen.records.draft import Draft
from tureen.records.fields import Fields, check_type, describe_type
from tureen.records.openings import read_template_arguments, read_tool_descriptions, refuse_unread_text
from tureen.records.pair_scores import MARGINS, TIES
from tureen.records.resemblance import describe_unknown
from tureen.records.schema import BadOption, BadRecord

Types = type | tuple[type, ...]
SIDE: Types = (str, list, dict)
KNOWN = "kept beside the record"
RENDERED = "rendered into the text"
UNKNOWN = "not understood, kept beside the record"
# columns that say where a record comes from or how it was made; no text hangs on them
NOTES = {
    *("id", "uid", "uuid", "prompt_id", "question_id", "qid", "post_id", "external_id", "index", "idx", "meta"),
    *("metadata", "source", "dataset", "subset", "category", "domain", "split", "language", "lang", "model", "models"),
    *("chosen_model", "rejected_model", "chosen-model", "rejected-model", "model_a", "model_b", "annotator", "date"),
    *(
        "timestamp",
        "created_at",
        "similarity",
        *TIES,
        *MARGINS,
        "probability",
        "orders",
        "parallel_tool_calls",
        "prompt_source",
    ),
}


@dataclass(frozen=True)
class RecordForm:
    """How a form is made out and read.

    Attributes:
        required: the columns that make it out, with their types.
        read: what reads it.
        matches: what else tells it from forms of the same columns.
        notes: columns that it knows and keeps beside the record.
    """

    required: Mapping[str, Types]
    read: Callable[[Columns], Draft]
    matches: Callable[[Fields], bool] = lambda _: True
    notes: Sequence[str] = ()


FORMS: dict[str, RecordForm] = {
    "dsp": RecordForm({"query": str, "responses": dict}, dsp_forms.read_domains),
    "text-score": RecordForm(
        {"text": list, "score": list}, dsp_forms.read_scored_dialogues, notes=("reward", "calibrated", "raw")
    ),
    "text-scores": RecordForm({"text": list, "scores": list}, dsp_forms.read_scored_dialogues),
    "prompt-pair": RecordForm({"prompt": str, "chosen": str, "rejected": str}, pair_forms.read_pair),
    "hh": RecordForm({"chosen": str, "rejected": str}, pair_forms.read_pair, pair_forms.are_dialogues),
    "chat": RecordForm({"chosen": list, "rejected": list}, pair_forms.read_pair),
    "pair": RecordForm({"chosen": SIDE, "rejected": SIDE}, pair_forms.read_pair),
    "completions": RecordForm(
        {"user_input": str, "completion_a": str, "completion_b": str}, dsp_forms.read_completions
    ),
    "alpaca-pair": RecordForm({"instruction": str, "output_1": str, "output_2": str}, alpaca_forms.read_annotated_pair),
    "summaries": RecordForm(
        {"info": dict, "summaries": list, "choice": int},
        summary_forms.read_summaries,
        notes=("worker", "batch", "extra"),
    ),
    "summary-ratings": RecordForm(
        {"info": dict, "summary": dict}, summary_forms.read_summary_ratings, notes=("worker", "batch")
    ),
    "label-studio": RecordForm({"data": dict, "annotations": list}, exports.read_label_studio),
    "argilla": RecordForm({"fields": dict}, exports.read_argilla),
    "argilla-table": RecordForm({}, exports.read_flat_argilla, exports.is_flat_argilla),
    "two-answers": RecordForm({}, two_answers.read_two_answers, two_answers.has_two_answers),
    "answer-list": RecordForm({}, answer_lists.read_answer_list, answer_lists.has_answer_list),
    "unpaired": RecordForm({"label": (bool, int, float, str)}, rated_forms.read_unpaired, rated_forms.is_unpaired),
    "alpaca-ranking": RecordForm(
        {"instruction": str, "output": list}, alpaca_forms.read_ranked_pair, alpaca_forms.is_ranked_pair
    ),
    "alpaca-samples": RecordForm({"instruction": str, "output": (str, list)}, alpaca_forms.read_samples),
    "pair-verdict": RecordForm({"messages": list}, pair_verdict.read_verdict, pair_verdict.is_pair_text),
    "stepwise": RecordForm({"prompt": (str, list), "completions": list, "labels": list}, stepwise.read_completions),
    "math-answers": RecordForm({"prompt": str, "answers": list, "label": list}, stepwise.read_answers),
    "math-steps": RecordForm({"conversations": list}, stepwise.read_conversations),
    "math-shepherd": RecordForm({"input": str, "label": str}, stepwise.read_math_shepherd),
    "rated": RecordForm({"messages": list}, rated_forms.read_rated_messages),
    "rated-response": RecordForm({"prompt": (str, list), "response": str}, rated_forms.read_rated_response),
}


def parse_record(
    item: object, form: str = "auto", renamed: Mapping[str, str] | None = None, strict: bool = False, turn: bool = False
) -> Draft:
    """What one decoded object says.

    Args:
        item: a record as a file holds it.
        form: a name of :data:`FORMS`, or ``auto``: the first whose columns are all there, of the right types.
        renamed: name in the file → name that the form knows; an empty name leaves the column out.
        strict: refuse a column that is not understood.
        turn: where the scores contradict which answer is chosen, take the scores; else the record is refused.

    Raises:
        BadRecord: it is no object, its form is unknown, or a column is missing or has a value that cannot be used.
    """
    if not isinstance(item, dict):
        raise BadRecord("not an object", f"a record is an object with named fields, this is {describe_type(item)}")
    columns = unpack_columns(item, renamed or {})
    name = detect_form(_plain(columns)) if form == "auto" else form
    chosen = FORMS[name]
    for column, wanted in chosen.required.items():
        if column not in columns:
            detail = f"`{column}` is not there or null; there is {', '.join(columns) or 'nothing'}"
            raise BadRecord("missing field", detail)
        check_type(columns[column], wanted, columns.describe_name(column))
    _check_both_sides(columns, name)
    draft = chosen.read(columns)
    tools, arguments = read_tool_descriptions(columns), read_template_arguments(columns)
    refuse_unread_text(columns)
    if draft.contradiction and not turn:
        detail = f"the scores contradict which answer is preferred: {draft.contradiction}"
        raise BadRecord(
            "bad score", f"{detail}; take the scores with --reversed turn, in a recipe reversed_pairs: turn"
        )
    treated = _treat(columns, chosen, draft, strict)
    meta = _lay_open(columns.unused)
    return replace(draft, form=name, meta=meta, tools=tools, chat_template_kwargs=arguments, columns=treated)


def detect_form(fields: Fields) -> str:
    """The name of the form that has these columns; of several, the first whose types fit.

    Raises:
        BadRecord: none has; it names the form that the record most resembles.
    """
    named = [name for name, form in FORMS.items() if form.required and form.required.keys() <= fields.keys()]
    fitting = [name for name, form in FORMS.items() if form.required.keys() <= fields.keys() and _fits(form, fields)]
    if fitting:
        return fitting[0]
    if not named:
        raise BadRecord("unknown form", describe_unknown(fields, {name: form.required for name, form in FORMS.items()}))
    return max(named, key=lambda name: _count_fitting(FORMS[name], fields))


def check_form(form: str) -> None:
    """Refuse a name that is no form.

    Raises:
        BadOption: with the names that are.
    """
    if form != "auto" and form not in FORMS:
        raise BadOption(f"unknown form {form!r}; use auto, {', '.join(FORMS)}")


def _fits(form: RecordForm, fields: Fields) -> bool:
    return all(isinstance(fields[name], wanted) for name, wanted in form.required.items()) and form.matches(fields)


def _count_fitting(form: RecordForm, fields: Fields) -> int:
    return sum(isinstance(fields[name], wanted) for name, wanted in form.required.items())


def _check_both_sides(columns: Columns, form: str) -> None:
    """Refuse one side of a pair where the other is missing; ``chosen`` may also say which of two answers is better."""
    if len({"chosen", "rejected"} & set(columns)) == 1 and form != "two-answers":
        there = "chosen" if "chosen" in columns else "rejected"
        missing = "rejected" if there == "chosen" else "chosen"
        detail = f"`{there}` is one side of a pair, and `{missing}` is missing: name it with --map OLD={missing}"
        raise BadRecord("missing field", detail)


def _plain(columns: Columns) -> dict[str, Any]:
    return {name: columns.peek(name) for name in columns}


def _treat(columns: Columns, form: RecordForm, draft: Draft, strict: bool) -> dict[str, str]:
    """What was done with each column that is not one of the form's own.

    Raises:
        BadRecord: under ``strict``: a column is not understood.
    """
    treated = dict.fromkeys(columns.rendered, RENDERED)
    known = {*NOTES, *form.notes, *draft.attributes, *columns.repeated}
    known |= {f"{side}_{name}" for side in ("chosen", "rejected") for name in draft.attributes}
    for name in columns.unused:
        treated[name] = KNOWN if name in known else UNKNOWN
        if strict and name not in known:
            detail = f"`{name}` is not understood: rename it with --map {name}=NAME, or leave it out with --map {name}="
            raise BadRecord("unknown column", detail, column=name)
    return treated


def _lay_open(unused: Mapping[str, Any]) -> dict[str, Any]:
    """What no reader took; an inner ``meta``, as the writers of this package leave it, is laid open."""
    inner = unused.get("meta")
    if isinstance(inner, dict):
        return {**inner, **{name: value for name, value in unused.items() if name != "meta"}}
    return dict(unused)
