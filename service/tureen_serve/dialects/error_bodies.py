"""The error bodies of other servers.

FastAPI's ``{"detail": ...}`` is for dialects whose originals leave that to it; others have OpenAI's object with the
status in its ``code``.
"""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from tureen.errors import TureenError, Unprocessable
from tureen_serve import faults


class FieldMistake(BaseModel):
    """One bad field, as FastAPI describes it."""

    loc: list[str]
    msg: str
    type: str


class DetailBody(BaseModel):
    """FastAPI's error: a sentence, or what is wrong with the body."""

    detail: str | list[FieldMistake]


class CodedError(BaseModel):
    """OpenAI's error object, its ``code`` a status."""

    message: str
    type: str
    param: str | None
    code: int


class CodedErrorBody(BaseModel):
    """A reply with this error object."""

    error: CodedError


def build_detail_reply(error: TureenError) -> JSONResponse:
    """Build FastAPI's error reply: a list that names the bad field, or a sentence."""
    if not isinstance(error, Unprocessable):
        return build_reply(error, DetailBody(detail=write_sentence(error)))
    told_of = faults.describe_error(error)
    place = ["body", told_of.param] if told_of.param else ["body"]
    return build_reply(error, DetailBody(detail=[FieldMistake(loc=place, msg=told_of.message, type=error.code)]))


def build_reply(error: TureenError, content: BaseModel, status: int | None = None) -> JSONResponse:
    """Build an error reply with the body of a dialect, and with its status where it differs from ours."""
    told: dict[str, Any] = content.model_dump()
    return JSONResponse(told, status_code=status or error.status, headers=faults.build_error_headers(error))


def write_sentence(error: TureenError) -> str:
    """Write one sentence that names the field, for bodies without a place for the field."""
    known = faults.describe_error(error)
    if not known.param or known.message.startswith(known.param):
        return known.message
    return f"{known.param}: {known.message}"
