"""Join a prompt and its answers. Answers may begin with the prompt.

Files repeat the prompt in the answers, in the same or another spelling. It is recognised by its turns. If only one
answer repeats it, or if that cannot be decided, the record is refused.
"""

import re
from collections.abc import Sequence

from tureen.records.draft import make_answers
from tureen.records.openings import Opening
from tureen.records.schema import BadRecord, Conversation
from tureen.records.spelling import merge_spellings, normalise_text, same_turns, split_prompt, split_system

FRAMED = 300  # characters within which a head such as `### Instruction:` ends
HEAD_END = re.compile(r"(?:[:>\]|]\s*|\n)\Z")
JOINING_SPACE = re.compile(r"\A (?! )")  # two and more are the indentation of code
LONG = 3  # words; an answer begins with a shorter text also by chance, as with a greeting
LONG_FOREIGN = 8  # characters of a script that does not part words by spaces


def join_prompt(prompt: Conversation, sides: Sequence[Conversation]) -> tuple[Conversation, tuple[Conversation, ...]]:
    """Split the shared prompt from the answer of each side.

    Args:
        prompt: the turns of the prompt's own columns; may be empty.
        sides: for each answer its turns, with or without the prompt.

    Raises:
        BadRecord: only some sides repeat the prompt, another prompt stands in a side, or nothing follows the prompt.
    """
    system, body = split_system(prompt)
    if not body:
        return split_prompt([_add_system(system, side) for side in sides])
    body = _drop_answer(body, sides)
    parted = [split_system(side) for side in sides]
    found = [_find_prompt(body, turns) for _, turns in parted]
    if len({each is None for each in found}) > 1:
        raise BadRecord("prompt repeated once", "only one side repeats the prompt: repeat it in both, or in none")
    heads, rests = [], []
    for (own, turns), place in zip(parted, found, strict=True):
        _check_continuation(body, turns, own, place)
        begin, end = place or (0, 0)
        heads.append(merge_spellings([body, turns[:end]]) if end - begin == len(body) and not begin else body)
        if begin < 0:  # the side begins with the prompt's last turns
            heads[-1] = body
        elif begin:
            heads[-1] = turns[:end]
        rests.append(turns[end:])
    if not all(rests):
        raise BadRecord("no answer", "`chosen` and `rejected` need at least one message each after the prompt")
    if not all(same_turns(head, heads[0]) for head in heads):
        raise BadRecord("prompts differ", "the sides hold different conversations before the answer")
    opening = (*_one_system(system, [own for own, _ in parted]), *merge_spellings(heads))
    shared, answers = split_prompt([(*opening, *rest) for rest in rests])
    return (shared, answers) if shared else (opening, tuple(rests))


def join_sides(
    prompt: Conversation, spelled: Sequence[str], values: Sequence[object], sides: Sequence[Conversation]
) -> tuple[Conversation, tuple[Conversation, ...]]:
    """Join as :func:`join_prompt` does. Some sides are plain text, which may begin with the text of the prompt.

    A space that joins a text to its prompt is removed.

    Args:
        prompt: the turns of the prompt's own columns; may be empty.
        spelled: the prompt as the file spells it, and its last turn alone.
        values: for each answer its value in the file.
        sides: for each answer its turns.

    Raises:
        BadRecord: as :func:`join_prompt`, or only one text begins with the prompt.
    """
    if prompt:
        sides = [
            _remove_joint(side) if isinstance(value, str) else side for value, side in zip(values, sides, strict=True)
        ]
    if not prompt or not any(isinstance(value, str) for value in values) or any(len(side) != 1 for side in sides):
        return join_prompt(prompt, sides)
    texts = [side[0]["content"] or "" for side in sides]
    rests = _cut_prompt(texts, spelled)
    if rests is None:
        _refuse_framed(texts, spelled)
        return join_prompt(prompt, sides)
    last = prompt[-1]
    if not all(text.startswith(last["content"]) for text in texts):
        prompt = (*prompt[:-1], {**last, "content": normalise_text(last["content"])})
    return join_prompt(prompt, [({**side[0], "content": rest},) for side, rest in zip(sides, rests, strict=True)])


def join_texts(opening: Opening, texts: Sequence[str]) -> tuple[Conversation, tuple[Conversation, ...]]:
    """Join as :func:`join_sides` does, for answers of plain text.

    Raises:
        BadRecord: as :func:`join_sides`.
    """
    return join_sides(opening.turns, opening.spelled, texts, make_answers(*texts))


def _remove_joint(side: Conversation) -> Conversation:
    if len(side) != 1 or not side[0]["content"]:
        return side
    return ({**side[0], "content": JOINING_SPACE.sub("", side[0]["content"])},)


def _cut_prompt(texts: Sequence[str], prompts: Sequence[str]) -> list[str] | None:
    """Cut the prompt from each text. None if no text begins with it, or if it is so short that this is chance."""
    for prompt in filter(None, map(normalise_text, prompts)):
        rests = [_cut(normalise_text(text), prompt) for text in texts]
        if all(rest is None for rest in rests):
            continue
        if not _is_long(prompt):
            continue
        if any(rest is None for rest in rests):
            raise BadRecord("prompt repeated once", "only one side begins with the prompt: repeat it in both, or none")
        return [rest or "" for rest in rests]
    return None


def _is_long(prompt: str) -> bool:
    return len(prompt.split()) >= LONG or sum(letter > "\u2e7f" for letter in prompt) >= LONG_FOREIGN


def _refuse_framed(texts: Sequence[str], prompts: Sequence[str]) -> None:
    """Refuse texts with the prompt under a head, such as ``### Instruction:``, ``Question:`` or a template's mark.

    Raises:
        BadRecord: a text has such a head, so the beginning of its answer is unknown.
    """
    for prompt in filter(_is_long, map(normalise_text, prompts)):
        for text in map(normalise_text, texts):
            head, found, rest = text.partition(prompt)
            if found and rest.strip() and 0 < len(head) <= FRAMED and HEAD_END.search(head):
                detail = f"a side holds the prompt after {head[-40:]!r}: leave the prompt out of the sides"
                raise BadRecord("prompt in a side", detail)


def _cut(text: str, prompt: str) -> str | None:
    """Cut the prompt from a text. None if the text does not begin with it, or has nothing else."""
    if text.startswith(prompt):
        rest = text[len(prompt) :]
        return None if rest[:1].isalnum() and prompt[-1].isalnum() else rest.lstrip() or None
    words = prompt.split()
    if text.split(maxsplit=len(words))[: len(words)] != words:
        return None
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return text[ends[len(words) - 1] :].lstrip() or None


def _find_prompt(body: Conversation, turns: Conversation) -> tuple[int, int] | None:
    """Find the turns of a side that repeat the prompt: first and end. A negative first counts missing turns."""
    if same_turns(turns[: len(body)], body):
        return 0, len(body)
    for begin in range(len(turns) - len(body) - 1, 0, -1):
        if same_turns(turns[begin : begin + len(body)], body):
            return begin, begin + len(body)
    for kept in range(min(len(body), len(turns)) - 1, 0, -1):
        if turns[0]["role"] == "user" and same_turns(turns[:kept], body[-kept:]):
            return kept - len(body), kept
    return None


def _drop_answer(body: Conversation, sides: Sequence[Conversation]) -> Conversation:
    """Remove an answer from the end of the prompt if it is one of the sides, or ends the whole of one."""
    if len(body) > 1 and any(same_turns(body, side) for side in sides):
        return body[:-1]
    if body[-1]["role"] == "assistant" and all(side and side[0]["role"] == "assistant" for side in sides):
        if len(body) < 2 or not any(same_turns(body[-1:], side) for side in sides):
            raise BadRecord("prompts differ", "the prompt ends with an answer, and the sides begin with another one")
        return body[:-1]
    return body


def _check_continuation(body: Conversation, turns: Conversation, own: Conversation, place: object) -> None:
    if place is not None:
        return
    if own or (turns and turns[0]["role"] == "user" and body[-1]["role"] != "assistant"):
        raise BadRecord("prompts differ", "the sides begin with another conversation than the prompt")


def _add_system(system: Conversation, side: Conversation) -> Conversation:
    own, turns = split_system(side)
    return (*_one_system(system, [own]), *turns)


def _one_system(given: Conversation, own: Sequence[Conversation]) -> Conversation:
    """Find the system turn: that of the prompt, or of all sides."""
    if len({bool(each) for each in own}) > 1:
        raise BadRecord("prompts differ", "a system turn stands in one side only")
    versions = [each for each in (given, *own) if each]
    if not all(same_turns(each, versions[0]) for each in versions):
        raise BadRecord("prompts differ", "the system turns of the prompt and the sides differ")
    return merge_spellings(versions) if versions else ()
