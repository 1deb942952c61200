"""When two spellings are one conversation: turns are compared without what files add by chance."""

import json
import unicodedata
from collections.abc import Sequence

from tureen.records.schema import BadRecord, Conversation, Message


def normalise_text(text: str) -> str:
    """Normalise a text: NFC, line feeds as line ends, and no white space at its ends."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def same_turns(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Whether two lists of messages say the same."""
    return len(first) == len(second) and all(
        one == other or _key(one) == _key(other) for one, other in zip(first, second, strict=True)
    )


def merge_spellings(versions: Sequence[Conversation]) -> Conversation:
    """Merge equal conversations into one. A message with several spellings is normalised."""
    return tuple(
        turns[0] if all(turn == turns[0] for turn in turns) else _normalised(turns[0])
        for turns in zip(*versions, strict=True)
    )


def split_system(turns: Conversation) -> tuple[Conversation, Conversation]:
    """Split off the system turn, if there is one."""
    return (turns[:1], turns[1:]) if turns and turns[0]["role"] == "system" else ((), turns)


def split_prompt(conversations: Sequence[Conversation]) -> tuple[Conversation, tuple[Conversation, ...]]:
    """Split whole conversations into their shared prompt and the answer of each.

    The prompt has all turns but the last if the conversations agree on them. If answers call tools, it has the turns
    up to the last request. Otherwise the prompt is empty and the answers are whole conversations.

    Raises:
        BadRecord: a system turn stands in some of them only.
    """
    systems = {bool(split_system(conversation)[0]) for conversation in conversations}
    if len(systems) > 1:
        raise BadRecord("prompts differ", "a system turn stands in one of the answers' conversations only")
    heads = [conversation[:-1] for conversation in conversations]
    if all(same_turns(head, heads[0]) for head in heads):
        return merge_spellings(heads), tuple(conversation[-1:] for conversation in conversations)
    ends = [_find_last_request(conversation) for conversation in conversations]
    heads = [conversation[:end] for conversation, end in zip(conversations, ends, strict=True)]
    rests = tuple(conversation[end:] for conversation, end in zip(conversations, ends, strict=True))
    calling = any(turn["role"] == "tool" or "tool_calls" in turn for rest in rests for turn in rest)
    if ends[0] and calling and all(same_turns(head, heads[0]) for head in heads):
        return merge_spellings(heads), rests
    return (), tuple(conversations)


def _find_last_request(conversation: Conversation) -> int:
    """Find the index after the last user turn, or 0."""
    return max((place for place, turn in enumerate(conversation, 1) if turn["role"] == "user"), default=0)


def _normalised(turn: Message) -> Message:
    return {**turn, "content": normalise_text(turn["content"] or "")}


def _key(turn: Message) -> str:
    content = turn["content"]
    return json.dumps({**turn, "content": normalise_text(content) if content else ""}, sort_keys=True, default=str)
