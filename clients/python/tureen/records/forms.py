"""The public forms of preference data: which fields each has, and what they say.

A form is known by its fields. Those that it does not read go to the record's ``meta``; a field that is null or NaN
counts as absent, since tables (Parquet, pandas, Hugging Face datasets) fill with it what a record does not have.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tureen.records import dialogue, pair_verdict, stepwise
from tureen.records.draft import Draft, make_unlabelled_scores
from tureen.records.fields import Fields, check_type, describe_type, read_messages, read_score
from tureen.records.ratings import RATING_FIELDS, read_listed_ratings, read_pair_ratings, read_ratings
from tureen.records.schema import UNLABELLED, BadOption, BadRecord, Conversation, split_prompt

TIES = (0.0, 3.0)
PAIR_SCORES = ("chosen_score", "rejected_score")
ESCAPED_BREAK = "\\n"
JOINING_SPACE = re.compile(r"\A (?! )")  # two and more are the indentation of code


@dataclass(frozen=True)
class RecordForm:
    """The fields that make a form out, with their types; those that it may have; what reads them; and what else tells
    it from a form of the same fields, where types do not.
    """

    required: dict[str, type]
    optional: tuple[str, ...]
    read: Callable[[Fields], Draft]
    matches: Callable[[Fields], bool] = lambda _: True


def parse_record(item: object, form: str = "auto") -> Draft:
    """What one decoded object says.

    Args:
        item: a record as a file holds it.
        form: a name of :data:`FORMS`, or ``auto``: the first whose fields are all there, of the right types.

    Raises:
        BadRecord: it is no object, its form is unknown, or a field is missing or has a value that cannot be used.
    """
    if not isinstance(item, dict):
        raise BadRecord("not an object", f"a record is an object with named fields, this is {describe_type(item)}")
    fields = {name: value for name, value in item.items() if not _absent(value)}
    chosen = FORMS[detect_form(fields) if form == "auto" else form]
    for name, wanted in chosen.required.items():
        if name not in fields:
            detail = f"`{name}` is not there or null; there is {', '.join(fields) or 'nothing'}"
            raise BadRecord("missing field", detail)
        check_type(fields[name], wanted, name)
    draft = chosen.read(fields)
    read = {"attributes", *draft.attributes} if draft.attributes else set()
    return replace(draft, meta={name: value for name, value in _unread(fields, chosen).items() if name not in read})


def detect_form(fields: Fields) -> str:
    """The name of the form that has these fields; of several, the one whose types fit.

    Raises:
        BadRecord: none has.
    """
    named = [name for name, form in FORMS.items() if form.required.keys() <= fields.keys()]
    if not named:
        known = "; ".join(f"{name}: {', '.join(form.required)}" for name, form in FORMS.items())
        raise BadRecord("unknown form", f"fields {', '.join(fields) or '(none)'} are none of the known forms ({known})")
    return next((name for name in named if _fits(FORMS[name], fields)), named[0])


def _fits(form: RecordForm, fields: Fields) -> bool:
    return all(isinstance(fields[name], wanted) for name, wanted in form.required.items()) and form.matches(fields)


def check_form(form: str) -> None:
    """Refuse a name that is no form.

    Raises:
        BadOption: with the names that are.
    """
    if form != "auto" and form not in FORMS:
        raise BadOption(f"unknown form {form!r}; use auto, {', '.join(FORMS)}")


def _dsp(fields: Fields) -> Draft:
    """Every domain answers; which of them is preferred is the reader's choice, so nothing is labelled here."""
    responses = {
        name: "" if text is None else check_type(text, str, f"responses.{name}")
        for name, text in fields["responses"].items()
    }
    return Draft(
        (dialogue.user_turn(fields["query"]),),
        _answers(*responses.values()),
        make_unlabelled_scores(len(responses)),
        tuple(responses),
    )


def _text_score(fields: Fields) -> Draft:
    """Whole dialogues with a score each; a negative score marks padding, whose text is not even read."""
    texts, scores = fields["text"], [read_score(value, f"score[{i}]") for i, value in enumerate(fields["score"])]
    if len(texts) != len(scores):
        raise BadRecord("lengths differ", f"`text` has {len(texts)} items and `score` {len(scores)}")
    kept = [index for index, value in enumerate(scores) if not value < 0]
    if not kept:
        raise BadRecord("no answer", "`text` is empty or all padding")
    prompt, answers = split_prompt([_dialogue(texts[index], f"text[{index}]") for index in kept])
    rated = {
        name: tuple(values[index] for index in kept) for name, values in read_listed_ratings(fields, len(texts)).items()
    }
    return Draft(prompt, answers, tuple(scores[index] for index in kept), (), len(texts) - len(kept), attributes=rated)


def _completions(fields: Fields) -> Draft:
    """RLPHF: ``completion_a`` is the preferred one."""
    answers = _answers(fields["completion_a"], fields["completion_b"])
    return Draft((dialogue.user_turn(fields["user_input"]),), answers, (1.0, 0.0))


def _alpaca_pair(fields: Fields) -> Draft:
    """1 and 2 name the better output, what lies between leans to one (1.5 is a tie); NaN is a judgement not understood.

    0 is AlpacaFarm's mark of equal outputs and 3 a judge's TIE: both are ties.
    """
    preference = read_score(fields.get("preference"), "preference")
    if math.isnan(preference):
        scores = (UNLABELLED, UNLABELLED)
    elif preference in TIES:
        scores = (0.5, 0.5)
    elif 1 <= preference <= 2:
        scores = (2 - preference, preference - 1)
    else:
        raise BadRecord("bad score", f"`preference` must be 1 to 2, 0 or 3 for a tie, or null; is {preference:g}")
    return Draft(_alpaca_prompt(fields), _answers(fields["output_1"], fields["output_2"]), scores)


def _alpaca_samples(fields: Fields) -> Draft:
    """One output, or a list of samples, that nobody has judged."""
    output = fields["output"]
    if not isinstance(output, list):
        return Draft(_alpaca_prompt(fields), _answers(check_type(output, str, "output")), make_unlabelled_scores(1))
    samples = [check_type(sample, str, f"output[{index}]") for index, sample in enumerate(output)]
    return Draft(_alpaca_prompt(fields), _answers(*samples), make_unlabelled_scores(len(samples)))


def _chat(fields: Fields) -> Draft:
    """Message lists: whole conversations, or what follows ``prompt`` where they do not begin with it."""
    given = fields.get("prompt", [])
    prompt = dialogue.read_prompt(given) if isinstance(given, str) else read_messages(given, "prompt")
    sides = [read_messages(fields[side], side) for side in ("chosen", "rejected")]
    whole = all(side[: len(prompt)] == prompt for side in sides)
    conversations = sides if whole else [(*prompt, *side) for side in sides]
    if not all(len(conversation) > len(prompt) for conversation in conversations):
        raise BadRecord("no answer", "`chosen` and `rejected` need at least one message each after the prompt")
    shared, answers = split_prompt(conversations)
    if not shared:
        shared, answers = prompt, tuple(conversation[len(prompt) :] for conversation in conversations)
    return Draft(shared, answers, _pair_scores(fields), attributes=read_pair_ratings(fields))


def _prompt_pair(fields: Fields) -> Draft:
    """Strings: a space that joins an answer to its prompt is left out, and escaped line breaks are made real."""
    prompt, chosen, rejected = (fields[name] for name in ("prompt", "chosen", "rejected"))
    if _is_escaped(prompt):
        prompt, chosen, rejected = (text.replace(ESCAPED_BREAK, "\n") for text in (prompt, chosen, rejected))
    answers = _answers(JOINING_SPACE.sub("", chosen), JOINING_SPACE.sub("", rejected))
    return Draft(dialogue.read_prompt(prompt), answers, _pair_scores(fields), attributes=read_pair_ratings(fields))


def _hh(fields: Fields) -> Draft:
    prompt, answers = split_prompt([_dialogue(fields[side], side) for side in ("chosen", "rejected")])
    return Draft(prompt, answers, _pair_scores(fields), attributes=read_pair_ratings(fields))


def _rated(fields: Fields) -> Draft:
    """One answer and what it is rated by: numbers in ``attributes`` or ``labels``, else every column of a number."""
    if "messages" in fields:
        *prompt, answer = read_messages(fields["messages"], "messages") or (dialogue.assistant_turn(""),)
    else:
        given = fields["prompt"]
        prompt = list(dialogue.read_prompt(given) if isinstance(given, str) else read_messages(given, "prompt"))
        answer = dialogue.assistant_turn(fields["response"])
    return Draft(tuple(prompt), ((answer,),), make_unlabelled_scores(1), attributes=read_ratings(fields))


FORMS: dict[str, RecordForm] = {
    "dsp": RecordForm({"query": str, "responses": dict}, (), _dsp),
    "text-score": RecordForm({"text": list, "score": list}, (), _text_score),
    "completions": RecordForm({"user_input": str, "completion_a": str, "completion_b": str}, (), _completions),
    "alpaca-pair": RecordForm(
        {"instruction": str, "output_1": str, "output_2": str}, ("input", "preference"), _alpaca_pair
    ),
    "alpaca-samples": RecordForm({"instruction": str, "output": object}, ("input",), _alpaca_samples),
    "chat": RecordForm({"chosen": list, "rejected": list}, ("prompt", *PAIR_SCORES), _chat),
    "prompt-pair": RecordForm({"prompt": str, "chosen": str, "rejected": str}, PAIR_SCORES, _prompt_pair),
    "hh": RecordForm({"chosen": str, "rejected": str}, PAIR_SCORES, _hh),
    "pair-verdict": RecordForm({"messages": list}, (), pair_verdict.read_verdict, pair_verdict.is_pair_text),
    "stepwise": RecordForm(
        {"prompt": object, "completions": list, "labels": list}, ("score",), stepwise.read_completions
    ),
    "math-answers": RecordForm({"prompt": str, "answers": list, "label": list}, (), stepwise.read_answers),
    "math-steps": RecordForm({"conversations": list}, ("prompt",), stepwise.read_conversations),
    "math-shepherd": RecordForm({"input": str, "label": str}, (), stepwise.read_math_shepherd),
    "rated": RecordForm({"messages": list}, RATING_FIELDS, _rated),
    "rated-response": RecordForm({"prompt": object, "response": str}, RATING_FIELDS, _rated),
}


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _unread(fields: Fields, form: RecordForm) -> dict[str, Any]:
    """What the form does not read; an inner ``meta``, as the writers of this package leave it, is laid open."""
    unread = {name: value for name, value in fields.items() if name not in form.required and name not in form.optional}
    inner = unread.get("meta")
    if isinstance(inner, dict):
        return {**inner, **{name: value for name, value in unread.items() if name != "meta"}}
    return unread


def _alpaca_prompt(fields: Fields) -> Conversation:
    instruction, given = fields["instruction"], check_type(fields.get("input", ""), str, "input")
    return (dialogue.user_turn(f"{instruction}\n\n{given}" if given.strip() else instruction),)


def _pair_scores(fields: Fields) -> tuple[float, float]:
    """The scores given, where both are; else 1 and 0. Equal scores are a tie."""
    if not all(name in fields for name in PAIR_SCORES):
        return 1.0, 0.0
    chosen, rejected = (read_score(fields[name], name) for name in PAIR_SCORES)
    if chosen < rejected:
        raise BadRecord("bad score", f"`chosen_score` {chosen:g} is below `rejected_score` {rejected:g}")
    return chosen, rejected


def _dialogue(value: object, field: str) -> Conversation:
    return dialogue.read_dialogue(check_type(value, str, field), field)


def _answers(*texts: str) -> tuple[Conversation, ...]:
    return tuple((dialogue.assistant_turn(text),) for text in texts)


def _is_escaped(prompt: str) -> bool:
    """DeepSpeed-Chat-Extension's scored file writes each line break as a backslash and an n, also between turns."""
    return "\n" not in prompt and f"{ESCAPED_BREAK}Assistant:" in prompt
