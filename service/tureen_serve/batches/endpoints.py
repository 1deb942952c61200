"""The contract between batches and routes: for each endpoint, the type of a body and the function that answers it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from tureen.errors import TureenError
from tureen.wire import ErrorDetail, ErrorReply
from tureen_serve.faults import find_merged_status
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

Json = dict[str, Any]


@dataclass(frozen=True)
class LineAnswer:
    """The answer of a route to one line's body: status and JSON body, as over HTTP."""

    status: int
    body: Json

    @classmethod
    def refusal(cls, error: TureenError, status: int | None = None) -> "LineAnswer":
        """Make the answer that reports an error, with the error's own status by default."""
        detail = ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
        return cls(status or error.status, ErrorReply(error=detail).model_dump())

    @property
    def good(self) -> bool:
        """Whether it is not an error."""
        return self.status == HTTPStatus.OK

    @property
    def transient(self) -> bool:
        """Whether the server could not answer just now (503); the chunk is run again later."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE

    @property
    def faulty(self) -> bool:
        """Whether the server failed at this line, so that another try may succeed."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self.transient


@dataclass(frozen=True)
class BatchEndpoint:
    """One endpoint that batches may use.

    Attributes:
        body: the type of a line's body.
        run: returns the answers to bodies, in their order, at the lowest priority. The last argument bounds how many
            texts are generated at once. Bodies form the same runtime batches at every try, so that the numbers are the
            same wherever the runtime's are.
        openai: whether it is OpenAI's, so that its errors have the statuses of :func:`find_merged_status`.
    """

    body: type[BaseModel]
    run: Callable[[Engine, Metrics, Sequence[Any], int], Coroutine[Any, Any, list[LineAnswer]]]
    openai: bool = False

    def refuse(self, error: TureenError) -> LineAnswer:
        """Make the answer that reports an error of a line that does not run."""
        return LineAnswer.refusal(error, find_merged_status(error) if self.openai else error.status)


BatchEndpoints = Mapping[str, BatchEndpoint]
