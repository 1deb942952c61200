"""What a runner knows of the routes: for each endpoint, what a line's body must be, and how bodies are answered."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from tureen.errors import TureenError
from tureen.wire import ErrorDetail, ErrorReply
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

Json = dict[str, Any]


@dataclass(frozen=True)
class LineAnswer:
    """What the route would answer to one body."""

    status: int
    body: Json

    @classmethod
    def refusal(cls, error: TureenError) -> "LineAnswer":
        """The answer that tells of an error."""
        told = ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
        return cls(error.status, ErrorReply(error=told).model_dump())

    @property
    def good(self) -> bool:
        """Whether it is no error."""
        return self.status == HTTPStatus.OK

    @property
    def transient(self) -> bool:
        """Whether it says only that the server can do nothing at the moment."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE

    @property
    def faulty(self) -> bool:
        """Whether the server failed at it, so that another try may succeed."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self.transient


@dataclass(frozen=True)
class BatchEndpoint:
    """One route without its connection.

    Attributes:
        body: the type of a request's body.
        run: answers to bodies, in order, at the lowest priority. What floats come out depends on the bodies alone,
            where the runtime's batches do. The number bounds how many texts are written at once.
    """

    body: type[BaseModel]
    run: Callable[[Engine, Metrics, Sequence[Any], int], Coroutine[Any, Any, list[LineAnswer]]]


BatchEndpoints = Mapping[str, BatchEndpoint]
