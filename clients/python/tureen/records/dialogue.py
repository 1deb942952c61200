"""Dialogues that public files write as one string, and the messages in them.

Each style is the way that one family of files begins a turn. Reading keeps a turn's text as it stands; a turn that
itself holds a turn's beginning cannot be told from two turns, and :func:`write_dialogue` refuses it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tureen.records.schema import BadOption, BadRecord, Conversation, Message

SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant"}
INSTEAD = "write pairs of messages, as `tureen-train convert --to-pairs` does"


@dataclass(frozen=True)
class DialogueStyle:
    """How a turn begins: ``head`` finds one, ``user`` and ``assistant`` write one, ``between`` joins turns."""

    head: re.Pattern[str]
    user: str
    assistant: str
    between: str


STYLES = {
    # hh-rlhf, and DSP's helpful and harmless files
    "hh": DialogueStyle(
        head=re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):[ ]?"),
        user="\n\nHuman: ",
        assistant="\n\nAssistant: ",
        between="",
    ),
    # what DSP's converter writes, and its webgpt and gpt4llm files
    "dsp": DialogueStyle(
        head=re.compile(r"(?:\A\s*|\r?\n\r?\n)## (Human|Assistant):(?:\r?\n)?"),
        user="## Human:\n",
        assistant="## Assistant:\n",
        between="\n\n",
    ),
}
# Prompts of DeepSpeed-Chat-Extension: a single line break before the answer, one or two before the next request.
USER_STYLE = re.compile(r"(?:\A\s*|(?:\r?\n){1,2})(User|Assistant):[ ]?")
# HelpSteer's prompts: the first turn has no mark, and is the user's.
NEMO_STYLE = re.compile(r"(?:\A\s*|\s*\n)<extra_id_1>(User|Assistant)[ \t]*\r?\n")


# what templates write before a first turn: ChatML, Llama 3, Llama 2 and Mistral, Gemma, Zephyr and Phi, DeepSeek,
# Command R, OpenChat and Starling
RENDERED = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|<BOS_TOKEN>)?\s*"
    r"(?:<\|im_start\|>|<\|start_header_id\|>|\[INST\]|<start_of_turn>|<\|(?:system|user|prompter)\|>"
    r"|<｜User｜>|<\|START_OF_TURN_TOKEN\|>|GPT4 Correct User:)"
)
# what stands where the assistant would speak, and where the user spoke: Vicuna, Guanaco, Together
CUES = {"ASSISTANT:": "USER:", "### Assistant:": "### Human:", "<bot>:": "<human>:"}


def find_turns(text: str) -> Conversation:
    """Split a dialogue in one of :data:`STYLES` into turns. Returns none if the text begins with no turn."""
    return next((_turns(text, style.head) for style in STYLES.values() if style.head.match(text)), ())


def read_dialogue(text: str, field: str) -> Conversation:
    """Read the turns of a dialogue in one of :data:`STYLES`.

    Raises:
        BadRecord: it begins with none of their turns; ``field`` is named.
    """
    if turns := find_turns(text):
        return turns
    raise BadRecord("not a dialogue", f"`{field}` must begin with 'Human:' or '## Human:', begins with {text[:40]!r}")


def read_prompt(text: str) -> Conversation:
    """Read a prompt from a string: the turns of a dialogue without its empty last turn, or one user turn.

    Raises:
        BadRecord: a chat template has rendered it already.
    """
    if turns := find_turns(text):
        return _without_cue(turns)
    if RENDERED.match(text) or _is_cued(text):
        detail = "the prompt is rendered by a chat template already: write its turns as messages"
        raise BadRecord("rendered prompt", f"{detail}, begins with {text.strip()[:40]!r}")
    if NEMO_STYLE.search(text):
        opened = text if NEMO_STYLE.match(text) else f"<extra_id_1>User\n{text}"
        return _without_cue(_turns(opened, NEMO_STYLE))
    if USER_STYLE.match(text):
        turns = _turns(text, USER_STYLE)
        if _ends_with_cue(turns):
            return turns[:-1]
    return (user_turn(text),)


def write_dialogue(messages: Sequence[Message], style: str = "dsp") -> str:
    """Write messages as one string, from which :func:`read_dialogue` reads the same messages.

    Raises:
        BadOption: no such style.
        BadRecord: a system or tool turn, or a text that reads as another turn's beginning.
    """
    if style not in STYLES:
        raise BadOption(f"unknown dialogue style {style!r}; use {', '.join(STYLES)}")
    heads = {"user": STYLES[style].user, "assistant": STYLES[style].assistant}
    for message in messages:
        if message["role"] not in heads:
            detail = f"the text form has no {message['role']} turn; {INSTEAD}"
            raise BadRecord("cannot be written", detail)
        if message.keys() != {"role", "content"}:
            extra = ", ".join(sorted(message.keys() - {"role", "content"}))
            raise BadRecord("cannot be written", f"the text form has no {extra}; {INSTEAD}")
    text = STYLES[style].between.join(heads[message["role"]] + message["content"] for message in messages)
    if list(_turns(text, STYLES[style].head)) != list(messages):
        detail = f"a turn holds what begins a turn in the text form; {INSTEAD}"
        raise BadRecord("cannot be written", detail)
    return text


def user_turn(text: str) -> Message:
    """Make a user turn."""
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    """Make an assistant turn."""
    return {"role": "assistant", "content": text}


def _turns(text: str, head: re.Pattern[str]) -> Conversation:
    found = list(head.finditer(text))
    ends = [following.start() for following in found[1:]] + [len(text)]
    return tuple(
        {"role": SPEAKERS[turn[1]], "content": text[turn.end() : end]} for turn, end in zip(found, ends, strict=True)
    )


def _is_cued(text: str) -> bool:
    """Whether a text is a dialogue in plain words that ends where the assistant would speak."""
    ended = text.rstrip()
    return any(ended.endswith(cue) and asked in ended for cue, asked in CUES.items())


def _ends_with_cue(turns: Conversation) -> bool:
    return len(turns) > 1 and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip()


def _without_cue(turns: Conversation) -> Conversation:
    return turns[:-1] if _ends_with_cue(turns) else turns
