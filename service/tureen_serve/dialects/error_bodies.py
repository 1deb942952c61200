"""Build error replies as other servers do.

Servers that leave errors to FastAPI answer ``{"detail": ...}``. Others answer OpenAI's error object, with the HTTP
status in its ``code``.
"""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from tureen.errors import TureenError, Unprocessable
from tureen.wire import ErrorDetail
from tureen_serve import faults


class FieldMistake(BaseModel):
    """One bad field, as FastAPI describes it."""

    loc: list[str]
    msg: str
    type: str


class DetailBody(BaseModel):
    """FastAPI's error: a sentence, or a list of the bad fields."""

    detail: str | list[FieldMistake]


class CodedError(BaseModel):
    """OpenAI's error object, but ``code`` is the HTTP status."""

    message: str
    type: str
    param: str | None
    code: int


class CodedErrorBody(BaseModel):
    """The body of an error reply with :class:`CodedError`."""

    error: CodedError


def document_merged_errors(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Describe a route's errors for OpenAPI, with the statuses of :func:`faults.find_merged_status`."""
    return faults.document_errors(400, 404, 413, 415, 422, 503, 504, model=model, moved=faults.MERGED)


def describe_merged_error(error: TureenError) -> ErrorDetail:
    """Describe an error for these servers. A text that is too long is told in vLLM's words, which LiteLLM looks for."""
    detail = faults.describe_error(error)
    if error.code != "context_length_exceeded":
        return detail
    return detail.model_copy(update={"message": f"this model's maximum context length is exceeded: {detail.message}"})


def build_detail_reply(error: TureenError) -> JSONResponse:
    """Build FastAPI's error reply: a list that names the bad field, or a sentence."""
    if not isinstance(error, Unprocessable):
        return build_reply(error, DetailBody(detail=write_sentence(error)))
    detail = faults.describe_error(error)
    place = ["body", detail.param] if detail.param else ["body"]
    return build_reply(error, DetailBody(detail=[FieldMistake(loc=place, msg=detail.message, type=error.code)]))


def build_reply(error: TureenError, content: BaseModel, status: int | None = None) -> JSONResponse:
    """Build an error reply with the body of a dialect.

    Args:
        status: the dialect's status for this error; the error's own by default.
    """
    body: dict[str, Any] = content.model_dump()
    return JSONResponse(body, status_code=status or error.status, headers=faults.build_error_headers(error))


def write_sentence(error: TureenError) -> str:
    """Write the error as one sentence that names the field, for bodies that have no member for the field."""
    detail = faults.describe_error(error)
    if not detail.param or detail.message.startswith(detail.param):
        return detail.message
    return f"{detail.param}: {detail.message}"
