"""The turns before the answers: system turn, history, prompt and input, from all columns that hold them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tureen.message_fields import BadMessage
from tureen.records import dialogue
from tureen.records.answer_keys import changes_text
from tureen.records.column_names import HISTORIES, SYSTEMS, TEXT_COLUMNS
from tureen.records.columns import Columns, is_empty
from tureen.records.fields import check_type, read_messages
from tureen.records.schema import BadRecord, Conversation, Message
from tureen.records.spelled_messages import parse_messages
from tureen.records.spelling import normalise_text, same_turns, split_system
from tureen.tool_calls import read_tools

PROMPTS = (
    *("prompt", "instruction", "question", "query", "user_input", "user_prompt", "problem"),
    *("messages", "conversations", "conversation", "dialogue"),
)
EXCHANGES = (  # the two keys of a request and its answer
    *(("user", "assistant"), ("human", "assistant"), ("human", "gpt"), ("human", "bot"), ("user", "bot")),
    *(("question", "answer"), ("prompt", "response"), ("instruction", "output"), ("input", "output")),
    *(("query", "response"), ("prompt", "completion"), ("instruction", "response")),
)
TEXT_KEYS = ("full_text", "text", "response", "answer", "output", "completion", "generation")  # of an object
LATE_PROMPTS = ("input", "context", "history")  # they are the prompt only where no other column is


@dataclass(frozen=True)
class Opening:
    """The turns that all answers continue, and the prompt as the file spells it."""

    turns: Conversation = ()
    spelled: tuple[str, ...] = ()


def read_opening(columns: Columns, first: str = PROMPTS[0]) -> Opening:
    """Read the turns before the answers: system, history, prompt, and the input under an instruction.

    Args:
        columns: the record.
        first: the column that holds the prompt, where it is there; else the first of :data:`PROMPTS` that is.

    Raises:
        BadRecord: a column holds something else, two columns hold different prompts, or system turns differ.
    """
    name = next((each for each in (first, *PROMPTS) if not is_empty(columns.peek(each))), None) or _late_prompt(columns)
    prompt = read_turns(columns[name], name, user=True) if name else ()
    spelled = [columns.peek(name)] if name and isinstance(columns.peek(name), str) else []
    for other in PROMPTS:
        if name and other != name and not is_empty(columns.peek(other)):
            _check_second_prompt(columns, name, prompt, other)
    if name == "instruction":
        prompt = _add_input(columns, prompt)
    if prompt and prompt[-1]["role"] == "user":
        spelled.append(prompt[-1]["content"])
    return Opening(_surround(columns, prompt), tuple(spelled))


def read_turns(value: object, name: str, user: bool) -> Conversation:
    """Read the turns of a column: a list of messages, one message, a dialogue as text, or a text as one turn.

    Args:
        value: the column's value.
        name: the column, for errors.
        user: whether a text is the user's turn, or else the assistant's.

    Raises:
        BadRecord: it is none of these.
    """
    if isinstance(value, str):
        value = parse_messages(value, name)
    if isinstance(value, str):
        if user:
            return dialogue.read_prompt(value)
        turns = dialogue.find_turns(value)
        return turns or (dialogue.assistant_turn(value),)
    if isinstance(value, Mapping):
        if isinstance(value.get("messages"), list) and len(value) == 1:
            return read_messages(value["messages"], f"{name}.messages")
        for key in TEXT_KEYS:
            if isinstance(value.get(key), str) and "role" not in value and "from" not in value:
                for other in filter(TEXT_COLUMNS.__contains__, value):
                    if not is_empty(value[other]):
                        raise _refuse_text(f"{name}.{other}")
                return read_turns(value[key], f"{name}.{key}", user)
        return read_messages([value], name)
    given = check_type(value, (str, list, dict), name)
    if given and all(isinstance(each, Mapping) and {"input", "output"} == each.keys() for each in given):
        return _read_exchanges(given, name)
    return read_messages(given, name)


def _read_exchanges(given: Sequence[Mapping[str, Any]], name: str) -> Conversation:
    """Read turns as ``{"input": ..., "output": ...}``. The last may have no answer yet (Capybara)."""
    makers = (("input", dialogue.user_turn), ("output", dialogue.assistant_turn))
    return tuple(
        make(check_type(each[key], str, f"{name}[{index}].{key}"))
        for index, each in enumerate(given)
        for key, make in makers
        if key == "input" or index + 1 < len(given) or not is_empty(each[key])
    )


def read_tool_descriptions(columns: Columns) -> tuple[dict[str, Any], ...]:
    """Read the tools of the column ``tools``, see :func:`tureen.tool_calls.read_tools`. An empty column has none.

    Raises:
        BadRecord: it is no list of functions.
    """
    if is_empty(columns.peek("tools")):
        return ()
    try:
        return tuple(read_tools(columns.render("tools")))
    except BadMessage as error:
        raise BadRecord("wrong type", f"`tools{error.field}` {error.problem}", column="tools") from None


def read_template_arguments(columns: Columns) -> dict[str, Any]:
    """Read further arguments of the chat template. An empty column has none.

    Raises:
        BadRecord: it is no object.
    """
    if is_empty(columns.peek("chat_template_kwargs")):
        return {}
    given = check_type(columns.render("chat_template_kwargs"), dict, "chat_template_kwargs")
    return {name: value for name, value in given.items() if value is not None}


def refuse_unread_text(columns: Columns) -> None:
    """Refuse a record with a column, or a key of a listed answer, that changes the text and is not read.

    Raises:
        BadRecord: naming the column.
    """
    for name in (*TEXT_COLUMNS, *PROMPTS):
        if name not in columns.unused:
            continue
        if is_empty(columns.peek(name)):
            columns.drop(name)
        elif name in TEXT_COLUMNS:
            raise _refuse_text(columns.describe_name(name))
    for name in filter(changes_text, columns.unused_keys):
        raise _refuse_text(name)


def _refuse_text(column: str) -> BadRecord:
    detail = f"`{column}` changes the text, and this form cannot render it: put it into the prompt"
    return BadRecord("column that changes the text", f"{detail}, or leave it out with --map {column}=", column=column)


def _late_prompt(columns: Columns) -> str | None:
    """Find a column that is the prompt only if no other column is."""
    for name in LATE_PROMPTS:
        value = columns.peek(name)
        if is_empty(value) or (name == "context" and isinstance(value, str)):
            continue
        if isinstance(value, str) or _is_message(value) or (isinstance(value, list) and _is_message(value[0])):
            return name
    return None


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and bool({"role", "from"} & value.keys())


def _check_second_prompt(columns: Columns, name: str, prompt: Conversation, other: str) -> None:
    """Refuse a second prompt with another text. A repetition of the first, or of an answer, is kept as a column."""
    value = columns.peek(other)
    if isinstance(value, str):
        known = "\n".join(normalise_text(turn["content"] or "") for turn in prompt)
        same = normalise_text(value) in known or normalise_text(str(columns.peek(name))) in normalise_text(value)
    else:
        turns = read_turns(value, other, user=True)
        rivals = [columns.peek(side) for side in ("chosen", "rejected")]
        same = same_turns(turns, prompt) or any(value == rival for rival in rivals)
        same = same or any(
            isinstance(rival, str | list | dict) and same_turns(turns, (*prompt, *read_turns(rival, "", user=False)))
            for rival in rivals
        )
    if not same:
        detail = f"`{name}` and `{other}` hold different prompts: leave one out with --map {other}="
        raise BadRecord("two prompts", detail, column=other)
    columns.repeated.add(other)


def _add_input(columns: Columns, prompt: Conversation) -> Conversation:
    given = columns.peek("input")
    if is_empty(given) or not prompt or prompt[-1]["role"] != "user":
        return prompt
    text = check_type(columns.render("input"), str, "input")
    return (*prompt[:-1], {**prompt[-1], "content": f"{prompt[-1]['content']}\n\n{text}"})


def _surround(columns: Columns, prompt: Conversation) -> Conversation:
    """Put the system turn and the history before the prompt."""
    own, body = split_system(prompt)
    systems = [own] if own else []
    earlier_turns = next(
        (each for each in HISTORIES if each in columns.unused and not is_empty(columns.peek(each))), ""
    )
    if earlier_turns:
        earlier, history = split_system(_read_history(columns.render(earlier_turns), earlier_turns))
        systems += [earlier] if earlier else []
        body = body if same_turns(body[: len(history)], history) else (*history, *body)
    for name in SYSTEMS:
        if not is_empty(columns.peek(name)):
            systems.append((_read_system(columns.render(name), name),))
    if not all(same_turns(each, systems[0]) for each in systems):
        raise BadRecord("prompts differ", "the system turns of the record's columns differ")
    return (*systems[0], *body) if systems else body


def _read_system(value: object, name: str) -> Message:
    if isinstance(value, str):
        return {"role": "system", "content": value}
    turns = read_turns(value, name, user=True)
    if len(turns) != 1 or turns[0]["role"] != "system":
        raise BadRecord("wrong type", f"`{name}` must be a string or one system turn", column=name)
    return turns[0]


def _read_exchange(value: object) -> object:
    """Read an object with a request and its answer as a list of two. Another value stays."""
    for request, answer in EXCHANGES:
        if isinstance(value, Mapping) and value.keys() == {request, answer}:
            return [value[request], value[answer]]
    return value


def _read_history(value: object, name: str) -> Conversation:
    """Read earlier turns: messages, pairs of request and answer, texts by turns, or a dialogue as text."""
    if isinstance(value, str):
        return dialogue.read_dialogue(value, name)
    given = check_type(value, list, name)
    if _is_message(given[0]):
        return read_messages(given, name)
    given = [_read_exchange(each) for each in given]
    pairs = [each if isinstance(each, Sequence) and not isinstance(each, str) else None for each in given]
    texts = [text for pair in pairs if pair is not None for text in pair] if all(pairs) else given
    if (all(pairs) and any(len(pair or ()) != 2 for pair in pairs)) or len(texts) % 2:
        raise BadRecord("wrong type", f"`{name}` must hold pairs of request and answer", column=name)
    return tuple(
        (dialogue.assistant_turn if index % 2 else dialogue.user_turn)(check_type(text, str, f"{name}[{index // 2}]"))
        for index, text in enumerate(texts)
    )
