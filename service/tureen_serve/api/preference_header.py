"""Preferences in a header, ``X-Tureen-Preferences: helpful=0.7+harmless=0.3``, for clients that cannot change the body.

They mean what ``preferences`` in the body means. Evaluation harnesses, for example, send log-likelihood requests whose
fields are fixed, but can add headers.
"""

from typing import Annotated, TypeVar

from fastapi import Header

from tureen.errors import InvalidRequest
from tureen.wire import ChatRequest, CompletionRequest
from tureen_core.preference import parse_weights

NAME = "x-tureen-preferences"
PreferenceHeader = Annotated[
    str | None,
    Header(
        description="The `preferences` of a client that cannot add them to the body, as `helpful=0.7+harmless=0.3`.",
        max_length=4096,
    ),
]
B = TypeVar("B", ChatRequest, CompletionRequest)


def add_header(body: B, header: str | None) -> B:
    """Put the preferences of the header into a body.

    Raises:
        InvalidRequest: the header is not a mix, or the body has preferences too.
    """
    if header is None:
        return body
    if body.preferences is not None or body.desired_rewards is not None:
        message = f"the preferences stand in the header `{NAME}` and in the body; send only one of them"
        raise InvalidRequest(message, param=NAME, code="conflicting_preferences")
    return body.model_copy(update={"preferences": parse_weights(header, NAME)})
