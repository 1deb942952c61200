"""The errors of requests. Server and client use the same classes.

    TureenError
    ├── InvalidRequest            400  the request contradicts itself or cannot be parsed
    │   └── Unprocessable         422  a field has a value that cannot be used; ``param`` names it
    ├── Unauthorized              401  no key, or an unknown one
    ├── Forbidden                 403  the key does not carry the scope
    ├── NotFound                  404  no such model, preset or route
    ├── MethodNotAllowed          405  the route exists and takes another method
    ├── Conflict                  409  the fingerprint asked for is not the one loaded
    ├── PayloadTooLarge           413  the body is over the limit
    ├── UnsupportedMedia          415  the body is not plain JSON
    ├── RateLimited               429  the caller's own quota is spent
    ├── HeadersTooLarge           431  the headers are too many or too long
    ├── ServerFault               500  the server failed: a failed runtime, a score that is not finite
    │   ├── BadGateway            502  the server behind this one failed, or its reply cannot be used
    │   ├── Unavailable           503  the server is saturated, loading, draining or dead; try again
    │   └── DeadlineExceeded      504  the deadline has passed
    └── ConnectionFailed           --  raised by the client only: there was no reply

OpenAI's routes answer 400 where the others answer 415 or 422, as OpenAI does. A client then raises ``InvalidRequest``.

The server raises them anywhere. ``tureen_serve.faults`` makes a status and an OpenAI error object of them, and
``tureen.http_replies`` makes the same class of these again.

    try:
        client.score(items)
    except Unprocessable as error:
        print(error.param, error)
"""

from typing import ClassVar


class TureenError(Exception):
    """Base of all errors.

    Args:
        message: one sentence that says what is wrong and what to do.
        param: the field at fault, as ``items[3].candidates[1]`` or ``preferences.humor``.
        code: a machine-readable word; by default that of the class.
        retry_after: seconds after which a retry makes sense.
        request_id: set by the client from the reply.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after
        self.request_id = request_id

    def at(self, prefix: str) -> "TureenError":
        """Return the same error with ``prefix`` before its field: ``at("items[2]")``."""
        param = prefix if not self.param else f"{prefix}.{self.param}"
        return self.copy(param)

    def copy(self, param: str | None = None) -> "TureenError":
        """Return the same error with the field ``param``, without its traceback, which keeps what it saw alive."""
        return type(self)(self.message, param=param, code=self.code, retry_after=self.retry_after)


class InvalidRequest(TureenError):
    """400: the request cannot be understood."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class Unprocessable(InvalidRequest):
    """422: the value of a field is invalid."""

    status = 422
    code = "invalid_value"


class Unauthorized(TureenError):
    """401: a key is needed."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(TureenError):
    """403: this key may not do that."""

    status = 403
    type = "permission_error"
    code = "insufficient_scope"


class NotFound(TureenError):
    """404: no such thing is loaded."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(TureenError):
    """405: the route takes another method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(TureenError):
    """409: the loaded model is not the one that the request demands."""

    status = 409
    type = "invalid_request_error"
    code = "fingerprint_mismatch"


class PayloadTooLarge(TureenError):
    """413: the body is too large."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class UnsupportedMedia(TureenError):
    """415: the body is not JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class HeadersTooLarge(TureenError):
    """431: the headers are too many or too long."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class RateLimited(TureenError):
    """429: the caller's own quota is spent."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limited"
    retryable = True


class ServerFault(TureenError):
    """500: the server failed; the request was valid."""

    retryable = True


class BadGateway(ServerFault):
    """502: the server behind this one failed."""

    status = 502
    type = "upstream_error"
    code = "bad_gateway"


class Unavailable(ServerFault):
    """503: the server has no capacity now."""

    status = 503
    type = "overloaded_error"
    code = "queue_full"


class DeadlineExceeded(ServerFault):
    """504: the deadline has passed."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class ConnectionFailed(TureenError):
    """There was no reply: the connection was refused, reset, or timed out."""

    status = 0
    type = "connection_error"
    code = "connection_failed"
    retryable = True


BY_STATUS: dict[int, type[TureenError]] = {
    error.status: error
    for error in (
        InvalidRequest,
        Unprocessable,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        PayloadTooLarge,
        UnsupportedMedia,
        HeadersTooLarge,
        RateLimited,
        ServerFault,
        BadGateway,
        Unavailable,
        DeadlineExceeded,
    )
}


def find_error_class(status: int) -> type[TureenError]:
    """Return the class for a status: the exact one, else ``ServerFault`` from 500 on and ``InvalidRequest`` below."""
    if status in BY_STATUS:
        return BY_STATUS[status]
    return ServerFault if status >= 500 else InvalidRequest
