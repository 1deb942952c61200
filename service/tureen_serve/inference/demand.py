"""Who asks for the work of this context, and until when it is useful."""

from contextvars import ContextVar

TENANT: ContextVar[str] = ContextVar("tenant", default="")
DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)  # by the clock of the event loop
