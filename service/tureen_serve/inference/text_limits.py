"""Bound the bytes of texts before a template renders them or a tokenizer reads them. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tureen.errors import PayloadTooLarge
from tureen_core.chat_template import NO_INPUTS, TemplateInputs
from tureen_core.turns import Messages
from tureen_serve.inference.text_inputs import AnswerPair, FinishedText, Group, ScoreInput, Steps
from tureen_serve.strict_json import make_long_text_error, measure_text

FRAME = 32  # bytes that a message counts beside its texts: a template writes its role and marks
S = TypeVar("S", bound=ScoreInput)


@dataclass(frozen=True)
class TextLimits:
    """The largest texts.

    Attributes:
        text_bytes: of one text, in bytes of UTF-8. A conversation with its answer is one text.
        request_bytes: of all texts of a request. A prompt counts with each of its answers.
    """

    text_bytes: int = 2**20
    request_bytes: int = 32 * 2**20


def measure_messages(messages: Messages, beside: TemplateInputs = NO_INPUTS) -> int:
    """Return the bytes of a conversation, with what its template is given beside it."""
    size = 0
    for message in messages:
        size += FRAME
        for value in message.values():
            plain = type(value) is str and value.isascii()
            size += len(value) if plain else _measure(value)
    return size if beside is NO_INPUTS else size + _measure(beside.tools) + _measure(beside.arguments)


def measure_input(given: ScoreInput) -> list[int]:
    """Return the bytes of each text that is tokenised for an input. The steps of an answer are one text."""
    if isinstance(given, FinishedText):
        return [measure_text(given.text) if isinstance(given.text, str) else len(given.text)]
    prompt = measure_messages(given.prompt, NO_INPUTS if isinstance(given, AnswerPair) else given.beside)
    if isinstance(given, Group):
        return [prompt + measure_messages(answer) for answer in given.answers]
    if isinstance(given, Steps):
        return [prompt + sum(map(measure_text, given.steps))]
    return [prompt + measure_messages(given.first) + measure_messages(given.second)]


def take_inputs(inputs: Iterable[S], limits: TextLimits) -> list[S]:
    """List the inputs of a request. They are taken one by one, and no more once their texts are too large.

    Raises:
        PayloadTooLarge: they are.
    """
    taken, size = [], 0
    for each in inputs:
        size += sum(measure_input(each))
        if size > limits.request_bytes:
            message = f"the texts of the request have more than {limits.request_bytes} bytes"
            remedy = "(`limits.request_bytes`), counting a prompt with each of its answers; send several requests"
            raise PayloadTooLarge(f"{message} {remedy}", code="request_too_large")
        taken.append(each)
    return taken


def exceed_bytes(inputs: Iterable[ScoreInput], most: int) -> bool:
    """Return whether texts have more than ``most`` bytes together. No more of them are measured then."""
    size = 0
    for each in inputs:
        size += sum(measure_input(each))
        if size > most:
            return True
    return False


def check_conversation(messages: Messages, limits: TextLimits, param: str, beside: TemplateInputs = NO_INPUTS) -> int:
    """Check the bytes of one conversation, and return them.

    Raises:
        PayloadTooLarge: it is too large.
    """
    size = measure_messages(messages, beside)
    _check_size(size, limits, param)
    return size


def check_text_bytes(text: str, limits: TextLimits, param: str) -> None:
    """Check the bytes of one text.

    Raises:
        PayloadTooLarge: it is too large.
    """
    _check_size(measure_text(text), limits, param)


def _check_size(size: int, limits: TextLimits, param: str) -> None:
    if size > limits.text_bytes:
        raise make_long_text_error(size, limits.text_bytes, param)


def _measure(value: Any) -> int:
    """The bytes of all texts in a JSON value, and one for each value."""
    if isinstance(value, str):
        return measure_text(value)
    if isinstance(value, Mapping):
        return sum(_measure(name) + _measure(each) for name, each in value.items())
    return sum(map(_measure, value)) if isinstance(value, list | tuple) else 1
