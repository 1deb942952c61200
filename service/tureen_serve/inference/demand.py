"""Who asks for the work of this context, and until when it is useful."""

import asyncio
from contextvars import ContextVar

NO_TENANT = "default"  # the tenant of callers without one
TENANT: ContextVar[str] = ContextVar("tenant", default="")
DEADLINE: ContextVar[asyncio.Timeout | None] = ContextVar("deadline", default=None)


def find_seconds_left() -> float | None:
    """The seconds until the deadline; None without one, as in a stream that has begun, or where it has passed."""
    clock = DEADLINE.get()
    ends = None if clock is None else clock.when()
    left = None if ends is None else ends - asyncio.get_running_loop().time()
    return left if left is not None and left > 0 else None
