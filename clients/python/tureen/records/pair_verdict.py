"""RLHFlow's pairs as one text, whose answer is the better side's letter: read back into two answers.

``[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \\n``, as
:func:`tureen_core.inputs.write_pair_messages` writes it,
and as RLHFlow's RRM augmentation leaves it, which moves the answers with the spaces after them.
"""

import re

from tureen.records import dialogue
from tureen.records.draft import Draft
from tureen.records.fields import Fields, read_messages
from tureen.records.schema import BadRecord, Conversation, Message

MARKS = ("[CONTEXT]", "[RESPONSE A]", "[RESPONSE B]")
TEXT = re.compile(r"\A\[CONTEXT\](.*)\[RESPONSE A\](.*)\[RESPONSE B\](.*)\Z", re.DOTALL)
TURN = re.compile(r"\n<turn> (system|user|assistant)\n ")
SCORES = {"A": (1.0, 0.0), "B": (0.0, 1.0), "Same": (0.5, 0.5)}


def is_pair_text(fields: Fields) -> bool:
    """Whether the first message begins as a pair does."""
    first = fields["messages"][0] if fields["messages"] else None
    content = first.get("content") if isinstance(first, dict) else None
    return isinstance(content, str) and content.startswith(MARKS[0])


def read_verdict(fields: Fields) -> Draft:
    """Read two answers, and which one is better or ``Same``."""
    turns = read_messages(fields["messages"], "messages")
    if [turn["role"] for turn in turns] != ["user", "assistant"]:
        raise BadRecord("not a pair", "`messages` must be a user's pair and the assistant's letter")
    text, letter = turns[0]["content"], turns[1]["content"].strip()
    if letter not in SCORES:
        raise BadRecord("bad score", f"`messages[1].content` must be {', '.join(SCORES)}, is {letter[:20]!r}")
    found = TEXT.match(text)
    if found is None or any(text.count(mark) != 1 for mark in MARKS):
        raise BadRecord("not a pair", f"`messages[0].content` must hold {', '.join(MARKS)} in this order, each once")
    context, *sides = (_bare(part) for part in found.groups())
    return Draft(_turns(context), tuple((dialogue.assistant_turn(side),) for side in sides), SCORES[letter])


def _bare(part: str) -> str:
    """Remove the spaces between a part and the marks."""
    text = part.removeprefix(" ")
    return text.removesuffix(" \n") if text.endswith(" \n") else text.removesuffix(" ")


def _turns(context: str) -> Conversation:
    """Read the turns of the published plain template. A context without such turns is read as a prompt."""
    heads = list(TURN.finditer(context))
    if not heads or context[: heads[0].start()].strip():
        return dialogue.read_prompt(context)
    ends = [following.start() for following in heads[1:]] + [len(context.removesuffix("\n"))]
    return tuple(
        Message(role=turn[1], content=context[turn.end() : end]) for turn, end in zip(heads, ends, strict=True)
    )
