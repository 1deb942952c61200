"""From the items of a body to groups of answers, and which items cannot be.

With ``on_error: item`` a malformed item is spared: it is carried along with its error, and the rest are answered.
"""

from typing import Any

from pydantic import BaseModel, PrivateAttr, ValidationError, model_validator

from tureen.errors import TureenError, Unprocessable
from tureen.validation import unprocessable
from tureen.wire import Candidate, PreferencesRequest, Prompt, ScoreItem, ScoreRequest
from tureen_core.template import Messages
from tureen_serve.inference.engine import Group

VLLM_FIELDS = {"text_1", "text_2", "queries", "documents", "query", "data_1", "data_2"}


class SparedItem(ScoreItem):
    """What stands in the list in place of a malformed item: a well-formed one, and what was wrong."""

    _error: TureenError = PrivateAttr()


class Sparing(BaseModel):
    """Checks each item by itself where the body says ``on_error: item``."""

    @model_validator(mode="before")
    @classmethod
    def _spare(cls, body: Any) -> Any:
        if isinstance(body, dict) and body.get("on_error") == "item" and isinstance(body.get("items"), list):
            return {**body, "items": [_item(raw) for raw in body["items"]]}
        return body


class ScoreBody(Sparing, ScoreRequest):
    """``POST /v1/score``."""

    @model_validator(mode="before")
    @classmethod
    def _not_another_dialect(cls, body: Any) -> Any:
        if isinstance(body, dict) and "items" not in body and VLLM_FIELDS & body.keys():
            raise ValueError("this is the body of vLLM's /v1/score; send it to /vllm/v1/score, or send `items`")
        return body


class PreferencesBody(Sparing, PreferencesRequest):
    """``POST /v1/preferences``: labels for prompts with two or more candidates each."""


def _item(raw: Any) -> ScoreItem:
    try:
        return ScoreItem.model_validate(raw)
    except ValidationError as error:
        spared = SparedItem(prompt="", candidates=[""])
        spared._error = unprocessable(error.errors(include_url=False), raw)
        return spared


def group(item: ScoreItem, least: int = 1) -> Group:
    """An item as a group of ``least`` or more answers.

    Raises:
        TureenError: the item is malformed, its steps cannot be read, or it has too few candidates; ``param`` is
            relative to the item.
    """
    if isinstance(item, SparedItem):
        raise item._error
    if item.steps is not None:
        raise Unprocessable("no loaded reward reads steps; send `candidates`", param="steps", code="no_step_reward")
    found = _group(item)
    if len(found.answers) < least:
        message = f"a preference needs {least} or more candidates, and this item has {len(found.answers)}"
        raise Unprocessable(message, param="candidates")
    return found


def _group(item: ScoreItem) -> Group:
    if item.messages is not None:
        return Group([[message.plain() for message in item.messages]])
    return Group([answer(each) for each in item.candidates or ()], prompt(item.prompt or ""))


def prompt(given: Prompt) -> Messages:
    """A bare text is the user's turn."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [message.plain() for message in given]


def answer(given: Candidate) -> Messages:
    """A bare text is the assistant's turn."""
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}]
    return [message.plain() for message in given]
