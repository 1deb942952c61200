"""The mark of the trace that a request belongs to. A lane hands the marks of a batch's requests on, unread."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class TraceMark:
    """One request, by the context of its span."""

    span: Any


TRACE_MARK: ContextVar[TraceMark | None] = ContextVar("trace_mark", default=None)
