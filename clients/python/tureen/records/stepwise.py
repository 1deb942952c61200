"""Public forms of process and outcome labels: an answer step by step, or answers that are right or wrong.

A step's text loses white space at its ends and blank lines within, since a blank line is what parts steps here. The
answer's score is its last step's label: right up to its end (Math-Shepherd's hard labels, arXiv 2312.08935; in PRM800K
an answer stops at its first wrong step).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tureen.answer_steps import STEP_BREAK
from tureen.records import dialogue
from tureen.records.columns import Columns
from tureen.records.draft import Draft
from tureen.records.fields import check_type, read_messages, read_score
from tureen.records.openings import read_opening
from tureen.records.schema import BadRecord, Conversation

MARK = re.compile(r"\s*(?<!\S)ки[ \t]*(?:\n|\Z)")  # Math-Shepherd's; as a word's end it has no space before it
SIGN = re.compile(r"[ \t]+([+-])[ \t]*(?:\n|\Z)")
BLANK = re.compile(r"\n\n+")  # as published; a line of spaces parts nothing
FIRST = "Step 1"
SIGNS = {"+": 1.0, "-": 0.0}


def read_completions(columns: Columns) -> Draft:
    """Read TRL's stepwise form: the steps of one answer with a label each. ``score`` is the answer's own score."""
    texts = [check_type(text, str, f"completions[{index}]") for index, text in enumerate(columns["completions"])]
    labels = [_label(value, f"labels[{index}]") for index, value in enumerate(columns["labels"])]
    walked = _walked(read_opening(columns).turns, texts, labels)
    return replace(walked, scores=(read_score(columns["score"], "score"),)) if "score" in columns else walked


def read_conversations(columns: Columns) -> Draft:
    """Read RLHFlow's process rows: a user's step, then the assistant's + or −. One turn each is an outcome row.

    The first turn holds the question, too. It ends where "Step 1" begins, or where ``prompt`` says.
    """
    turns = read_messages(columns["conversations"], "conversations")
    roles = [turn["role"] for turn in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise BadRecord("not steps", f"`conversations` must alternate user and assistant, is {', '.join(roles)}")
    texts = [turn["content"] for turn in turns[::2]]
    labels = [_sign(turn["content"], f"conversations[{2 * at + 1}]") for at, turn in enumerate(turns[1::2])]
    question, texts[0] = _opened(texts[0], columns.get("prompt"))
    if len(texts) > 1:
        return _walked((dialogue.user_turn(question),), texts, labels)
    parts = split_marked_steps(texts[0])
    process = (tuple(labels),) if len(parts) == 1 else ()
    return _judged((dialogue.user_turn(question),), [parts], labels, process)


def read_answers(columns: Columns) -> Draft:
    """Read RLHFlow's test rows: many answers to one question, each right (1) or wrong (0) as a whole."""
    texts = [
        split_marked_steps(check_type(text, str, f"answers[{index}]")) for index, text in enumerate(columns["answers"])
    ]
    labels = [_label(value, f"label[{index}]") for index, value in enumerate(columns["label"])]
    if len(texts) != len(labels):
        raise BadRecord("lengths differ", f"`answers` has {len(texts)} items and `label` {len(labels)}")
    return _judged(read_opening(columns).turns, texts, labels)


def read_math_shepherd(columns: Columns) -> Draft:
    """Read Math-Shepherd's rows: ``label`` is ``input`` with + or − in the place of each ``ки``."""
    texts = [text.strip() for text in MARK.split(columns["input"]) if text.strip()]
    *pieces, rest = SIGN.split(columns["label"])
    if rest.strip() or [text.strip() for text in pieces[::2]] != texts:
        raise BadRecord("not steps", "`label` must be `input` with + or - in the place of each ки")
    question, texts[0] = _opened(texts[0], None)
    return _walked((dialogue.user_turn(question),), texts, [SIGNS[sign] for sign in pieces[1::2]])


def split_marked_steps(text: str) -> list[str]:
    """Split an answer into steps, at the mark ``ки`` if the answer has one, else at blank lines."""
    pieces = MARK.split(text) if MARK.search(text) else BLANK.split(text)
    return [step for step in map(_one, pieces) if step]


def _one(text: str) -> str:
    return BLANK.sub("\n", text.strip())


def _walked(prompt: Conversation, texts: Sequence[str], labels: Sequence[float]) -> Draft:
    steps = [_one(text) for text in texts]
    if len(steps) != len(labels):
        raise BadRecord("lengths differ", f"{len(steps)} steps and {len(labels)} labels")
    if not all(steps) or not steps:
        raise BadRecord("no answer", "there is no step, or a blank one")
    answer = (dialogue.assistant_turn(STEP_BREAK.join(steps)),)
    return Draft(tuple(prompt), (answer,), (labels[-1],), steps=(tuple(labels),))


def _judged(
    prompt: Conversation,
    texts: Sequence[Sequence[str]],
    labels: Sequence[float],
    process: tuple[tuple[float, ...], ...] = (),
) -> Draft:
    found = tuple((dialogue.assistant_turn(STEP_BREAK.join(parts)),) for parts in texts)
    return Draft(prompt, found, tuple(labels), steps=process)


def _opened(text: str, prompt: Any) -> tuple[str, str]:
    """Split a question from the first step. Public rows join them by a space."""
    if prompt is not None:
        question = check_type(prompt, str, "prompt")
        if not text.startswith(question):
            raise BadRecord("not steps", "the first turn must begin with `prompt`")
        return question, text.removeprefix(question).strip()
    at = text.find(FIRST)
    if at < 1 or not text[:at].strip():
        raise BadRecord(
            "not steps", f"where the question ends is not seen: no {FIRST!r} in it, and no `prompt` beside it"
        )
    return text[:at].strip(), text[at:].strip()


def _label(value: object, field: str) -> float:
    found = float(value) if isinstance(value, bool) else read_score(value, field)
    if found < 0 or found > 1:
        raise BadRecord("bad score", f"`{field}` must be 0 (wrong) to 1 (right), true or false, is {value}")
    return found


def _sign(text: str, field: str) -> float:
    if text.strip() not in SIGNS:
        raise BadRecord("bad score", f"`{field}` must be + or -, is {text[:20]!r}")
    return SIGNS[text.strip()]
