"""Tell callers what failed at an upstream: 502, 503 or 504, or 400 where the upstream refuses the caller's own request.

A server error and a refusal of the key are not quoted to callers: they may tell of the operator's account.
"""

from typing import Any

import httpx2
from pydantic import BaseModel, ValidationError

from tureen.errors import BadGateway, DeadlineExceeded, InvalidRequest, PayloadTooLarge, TureenError, Unavailable
from tureen.http_replies import read_retry_after
from tureen_serve.runtimes.upstream_contract import UpstreamError

EXCERPT = 300  # characters of an upstream's message
AGAIN = 5.0  # seconds after which a caller may try again, where the upstream does not say
TOO_LONG = ("context_length_exceeded", "maximum context length", "prompt is too long")
BUSY, TIMEOUT, DENIED = {429, 503, 529}, {408, 504}, {401, 402, 403}


class _Fault(BaseModel):
    """An error object of OpenAI, or one that is like it."""

    message: str = ""
    param: str | None = None
    code: str | int | None = None
    type: str | None = None


class _FaultReply(BaseModel):
    error: _Fault


def read_reply_fault(response: httpx2.Response, body: str, name: str) -> UpstreamError:
    """Read a reply whose status is not 200.

    Args:
        body: the beginning of its body, without the key.
        name: of the family.
    """
    status, wait = response.status_code, read_retry_after(response)
    said = _read_fault(body)
    if status in BUSY:
        return _make_busy(name, wait)
    if status in TIMEOUT:
        return make_timeout(f"the upstream of {name} did not answer in time (it says {status})")
    if status in DENIED:
        message = f"the upstream of {name} denies this server access (it says {status}); its operator must mend the key"
        return UpstreamError("denied", BadGateway(message, code="upstream_denied"))
    if status in (400, 413, 422):
        return _make_refusal(said, status, name)
    message = f"the upstream of {name} failed: it says {status}"
    if status < 500:  # the route, the model or the address is wrong
        message = f"{message}, {said.message[:EXCERPT]}" if said.message else message
        return UpstreamError("failed", BadGateway(message, code="upstream_failed"))
    return UpstreamError("failed", BadGateway(message, code="upstream_failed", retry_after=wait), again=True)


def read_streamed_fault(data: str, name: str, begun: bool) -> UpstreamError | None:
    """Read an event that holds an error; None if it is none."""
    try:
        said = _FaultReply.model_validate_json(data).error
    except ValidationError:
        return None
    if said.code in BUSY or said.type in ("overloaded_error", "rate_limit_error"):
        found = _make_busy(name, None)
    else:
        message = f"the upstream of {name} failed while it wrote"
        found = UpstreamError("failed", BadGateway(message, code="upstream_failed"), again=True)
    found.again = not begun
    return found


def make_transport_fault(error: httpx2.RequestError, name: str, begun: bool) -> UpstreamError:
    """Make the failure of a connection: none stands, it was lost, or nothing came in time."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        return make_timeout(f"the upstream of {name} did not answer in time ({type(error).__name__})")
    if isinstance(error, httpx2.SSEError | httpx2.DecodingError):
        message = f"the upstream of {name} sent what is no stream of events ({type(error).__name__})"
        return UpstreamError("bad_reply", BadGateway(message, code="upstream_bad_reply"))
    if begun:
        message = f"the connection to the upstream of {name} was lost while it wrote; send the request again"
        return UpstreamError("failed", BadGateway(message, code="upstream_failed"))
    message = f"the upstream of {name} cannot be reached ({type(error).__name__}); try again later"
    found = Unavailable(message, code="upstream_unreachable", retry_after=AGAIN)
    return UpstreamError("unreachable", found, again=True)


def make_timeout(message: str) -> UpstreamError:
    """Make the failure of an upstream that is too slow. It is not asked again: the caller has waited long enough."""
    return UpstreamError("timeout", DeadlineExceeded(message, code="upstream_timeout", retry_after=AGAIN))


def _make_busy(name: str, wait: float | None) -> UpstreamError:
    message = f"the upstream of {name} has no capacity now; try again later"
    return UpstreamError("busy", Unavailable(message, code="upstream_busy", retry_after=wait), again=True)


def _make_refusal(said: _Fault, status: int, name: str) -> UpstreamError:
    """Make the error of a request that the upstream finds wrong. Most fields have its names, so ``param`` is kept."""
    message = f"the upstream of {name} refuses this request: {said.message[:EXCERPT] or status}"
    told: dict[str, Any] = {"param": said.param}
    if said.code in TOO_LONG or any(words in said.message for words in TOO_LONG):
        error: TureenError = InvalidRequest(message, code="context_length_exceeded", **told)
    elif status == 413:
        error = PayloadTooLarge(message, **told)
    else:
        error = InvalidRequest(message, code="upstream_refused", **told)
    return UpstreamError("refused", error)


def _read_fault(body: str) -> _Fault:
    try:
        return _FaultReply.model_validate_json(body).error
    except ValidationError:
        return _Fault(message=" ".join(body.split())[:EXCERPT])
