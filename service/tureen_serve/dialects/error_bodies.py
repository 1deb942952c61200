"""Errors as other servers word them.

FastAPI's ``{"detail": ...}`` is for dialects whose originals leave that to it; others have OpenAI's object with the
status in its ``code``.
"""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from tureen.errors import TureenError, Unprocessable
from tureen_serve import faults


class FieldMistake(BaseModel):
    """A field that cannot be used."""

    loc: list[str]
    msg: str
    type: str


class DetailBody(BaseModel):
    """FastAPI's error: a sentence, or what is wrong with the body."""

    detail: str | list[FieldMistake]


class CodedError(BaseModel):
    """OpenAI's error object with a number for its code."""

    message: str
    type: str
    param: str | None
    code: int


class CodedErrorBody(BaseModel):
    """The reply that holds it."""

    error: CodedError


def build_detail_reply(error: TureenError) -> JSONResponse:
    """A sentence, or where a field cannot be used a list that names it."""
    if not isinstance(error, Unprocessable):
        return build_reply(error, DetailBody(detail=write_sentence(error)))
    told_of = faults.describe_error(error)
    place = ["body", told_of.param] if told_of.param else ["body"]
    return build_reply(error, DetailBody(detail=[FieldMistake(loc=place, msg=told_of.message, type=error.code)]))


def build_reply(error: TureenError, content: BaseModel, status: int | None = None) -> JSONResponse:
    """An error's reply with a dialect's body, and its status where that is not ours."""
    told: dict[str, Any] = content.model_dump()
    return JSONResponse(told, status_code=status or error.status, headers=faults.build_error_headers(error))


def write_sentence(error: TureenError) -> str:
    """One sentence that names the field, for bodies that have no place for it."""
    known = faults.describe_error(error)
    if not known.param or known.message.startswith(known.param):
        return known.message
    return f"{known.param}: {known.message}"
