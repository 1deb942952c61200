"""Pairs of a ``chosen`` and a ``rejected`` answer, in all their public layouts."""

from tureen.records import dialogue
from tureen.records.columns import Columns
from tureen.records.draft import Draft
from tureen.records.fields import Fields
from tureen.records.joining import join_sides
from tureen.records.openings import read_opening, read_turns
from tureen.records.pair_scores import read_pair_scores
from tureen.records.ratings import read_pair_ratings
from tureen.records.schema import BadRecord, Conversation

NAMES = ("chosen", "rejected")
ESCAPED_BREAK = "\\n"


def read_pair(columns: Columns) -> Draft:
    """Read a pair of texts, message lists, messages or whole dialogues, with or without a column for the prompt.

    Escaped line breaks become line breaks.

    Raises:
        BadRecord: a side cannot be read, there is no prompt, or whether a side repeats the prompt cannot be decided.
    """
    _unescape(columns)
    opening = read_opening(columns)
    sides = [read_turns(columns[name], columns.describe_name(name), user=False) for name in NAMES]
    values = [columns.peek(name) for name in NAMES]
    if not opening.turns:
        for name, side in zip(NAMES, sides, strict=True):
            _check_opened(columns, name, side)
    prompt, answers = join_sides(opening.turns, opening.spelled, values, sides)
    scored = read_pair_scores(columns)
    return Draft(
        prompt, answers, scored.scores, attributes=read_pair_ratings(columns), contradiction=scored.contradiction
    )


def are_dialogues(fields: Fields) -> bool:
    """Whether both sides are dialogues as text."""
    return all(isinstance(fields[name], str) and dialogue.find_turns(fields[name]) for name in NAMES)


def _check_opened(columns: Columns, name: str, side: Conversation) -> None:
    """Refuse a text that is only an answer if no column holds a prompt."""
    if isinstance(columns.peek(name), str) and not dialogue.find_turns(columns.peek(name)):
        dialogue.read_dialogue(columns.peek(name), columns.describe_name(name))
    if not side:
        raise BadRecord("no answer", "`chosen` and `rejected` need at least one message each after the prompt")
    if side[0]["role"] == "assistant" and len(side) == 1:
        raise BadRecord("missing field", "no column holds the prompt: name it with --map COLUMN=prompt")


def _unescape(columns: Columns) -> None:
    """Restore line breaks: DeepSpeed-Chat-Extension's scored file writes a backslash and an n for each."""
    prompt = columns.peek("prompt")
    if isinstance(prompt, str) and "\n" not in prompt and f"{ESCAPED_BREAK}Assistant:" in prompt:
        for name in ("prompt", *NAMES):
            if isinstance(columns.peek(name), str):
                columns.put(name, columns.peek(name).replace(ESCAPED_BREAK, "\n"))
