"""Turn the items of a body into groups of answers, or into errors.

With ``on_error: item``, a malformed item does not fail the request. It keeps its place with its error, and the other
items are answered.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, PrivateAttr, ValidationError, model_validator

from tureen.errors import TureenError, Unprocessable
from tureen.validation import explain_errors
from tureen.wire import (
    MAX_CANDIDATES,
    MAX_ITEMS,
    MAX_TEXTS,
    Candidate,
    PreferencesRequest,
    Prompt,
    ScoreItem,
    ScoreRequest,
    TemplateRequest,
)
from tureen_core.chat_template import TemplateInputs
from tureen_core.manifest import Input
from tureen_core.turns import Messages
from tureen_serve.inference.engine import Group, Steps

LARGEST_MATRICES = 2**20
VLLM_FIELDS = {"text_1", "text_2", "queries", "documents", "query", "data_1", "data_2"}


class MalformedItem(ScoreItem):
    """A placeholder for a malformed item, with its error."""

    _error: TureenError = PrivateAttr()


class ItemsBody(BaseModel):
    """Checks ``items`` of a body: first their number and that of their texts. With ``on_error: item`` each item is
    checked alone.

    Attributes:
        example: a valid body, for the error messages.
    """

    example: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _check_items(cls, body: Any) -> Any:
        if isinstance(body, cls):
            return body  # it was validated in a thread
        if not isinstance(body, dict):
            raise Unprocessable(f"the body must be an object: {cls.example}")
        if "items" not in body:
            raise Unprocessable(f"items: is required; send {cls.example}", param="items")
        if not isinstance(body["items"], list):
            raise Unprocessable(f"items: must be a list; send {cls.example}", param="items")
        _check_counts(body["items"])
        return {**body, "items": [_item(raw) for raw in body["items"]]} if body.get("on_error") == "item" else body


class ScoreBody(ItemsBody, ScoreRequest):
    """The body of ``POST /v1/score``."""

    example: ClassVar[str] = '{"items": [{"messages": [...]}]} or {"items": [{"prompt": ..., "candidates": [...]}]}'

    @model_validator(mode="before")
    @classmethod
    def _refuse_vllm_body(cls, body: Any) -> Any:
        if isinstance(body, dict) and "items" not in body and VLLM_FIELDS & body.keys():
            raise ValueError("this is the body of vLLM's /v1/score; send it to /vllm/v1/score, or send `items`")
        return body


class PreferencesBody(ItemsBody, PreferencesRequest):
    """The body of ``POST /v1/preferences``: prompts with two or more candidates each."""

    example: ClassVar[str] = '{"items": [{"prompt": ..., "candidates": [..., ...]}]}'


def _check_counts(items: Sequence[Any]) -> None:
    """Refuse too many items, candidates or steps before any of them is validated.

    An item that has too many itself is left to its own error.
    """
    texts = 0
    for item in items[: MAX_ITEMS + 1]:
        held = (item.get("candidates") or item.get("steps")) if isinstance(item, dict) else None
        texts += len(held) if isinstance(held, list) and len(held) <= MAX_CANDIDATES else 1
    if len(items) > MAX_ITEMS:
        message = f"items: the request has {len(items)} items and the limit is {MAX_ITEMS}"
    elif texts > MAX_TEXTS:
        message = f"items: the request has {texts} candidates and steps and the limit is {MAX_TEXTS}"
    else:
        return
    raise Unprocessable(f"{message}; send several requests", param="items")


def _item(raw: Any) -> ScoreItem:
    try:
        return ScoreItem.model_validate(raw)
    except ValidationError as error:
        malformed = MalformedItem(prompt="", candidates=[""])
        malformed._error = explain_errors(error.errors(include_url=False), raw)
        return malformed


def find_input_kind(items: Sequence[ScoreItem]) -> Input:
    """Find whether a body's items are steps or whole answers. The first well-formed item decides."""
    first = next((item for item in items if not isinstance(item, MalformedItem)), None)
    return "steps" if first is not None and first.steps is not None else "conversation"


def build_group(item: ScoreItem, least: int = 1, reads: Input = "conversation") -> Group | Steps:
    """Turn an item into a group of ``least`` or more answers, or into the steps of one answer.

    Args:
        reads: the kind of all items in the body.

    Raises:
        TureenError: the item is malformed, is of another kind, or has too few candidates; ``param`` is relative to the
            item.
    """
    if isinstance(item, MalformedItem):
        raise item._error
    if least > 1 and item.steps is not None:
        raise Unprocessable("a preference compares whole answers; send `candidates` instead of `steps`", param="steps")
    if (item.steps is not None) != (reads == "steps"):
        message = "different rewards read steps and whole answers; send them in separate requests"
        raise Unprocessable(
            message, param="candidates" if item.candidates else "messages" if item.messages else "steps"
        )
    if item.steps is not None:
        return Steps(read_prompt("" if item.prompt is None else item.prompt), item.steps, read_inputs(item))
    found = _group(item)
    if len(found.answers) < least:
        message = f"a preference needs {least} or more candidates, and this item has {len(found.answers)}"
        raise Unprocessable(message, param="candidates")
    return found


def _group(item: ScoreItem) -> Group:
    if item.messages is not None:
        return Group([[message.plain() for message in item.messages]], beside=read_inputs(item))
    prompt = read_prompt("" if item.prompt is None else item.prompt)
    return Group([read_answer(each) for each in item.candidates or ()], prompt, beside=read_inputs(item))


def read_inputs(given: TemplateRequest) -> TemplateInputs:
    """Read what a body gives the template beside the messages."""
    return TemplateInputs(given.tools or (), given.chat_template_kwargs or {})


def read_prompt(given: Prompt) -> Messages:
    """Read a prompt as messages. A plain text becomes the user's turn."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [message.plain() for message in given]


def read_answer(given: Candidate) -> Messages:
    """Read an answer as messages. A plain text becomes the assistant's turn."""
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}]
    return [message.plain() for message in given]


def check_matrices(body: PreferencesRequest) -> None:
    """Check the size of the matrices that a body asks for. It grows with the square of the number of candidates.

    Raises:
        Unprocessable: the matrices are too large.
    """
    entries = sum(len(item.candidates or ()) ** 2 for item in body.items) if body.matrix else 0
    if entries > LARGEST_MATRICES:
        message = f"the matrices would have {entries} entries and the limit is {LARGEST_MATRICES}; send fewer items"
        raise Unprocessable(message, param="matrix")
