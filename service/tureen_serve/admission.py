"""Admit requests: limit their number and the size of bodies, and stop work at a deadline or when the caller leaves.

The whole body is read here, unpacked if it is compressed, up to its limit. After that, the connection is watched while
the handler runs. The handler is cancelled if the caller disconnects or the deadline passes. A stream that has begun has
no deadline. An upload is too large for memory, so its route reads it while it arrives, up to a limit of its own.
"""

import asyncio
from collections.abc import Coroutine, Mapping

from tureen.errors import DeadlineExceeded, InvalidRequest, Unavailable
from tureen.wire import TIMEOUT_HEADER
from tureen_serve.body_codings import HEADER, UnpackedBody, read_coding
from tureen_serve.body_sizes import BodyMemory, check_length, limit_body, refuse_body
from tureen_serve.inference.demand import DEADLINE
from tureen_serve.settings import ServerLimits
from tureen_serve.telemetry import QUIET, App, Message, Receive, Scope, Send

READ = {name.encode(): name for name in ("content-length", TIMEOUT_HEADER)}  # the headers that are read here


class InFlight:
    """The requests that are being answered, each by a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: Unavailable | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(self, work: Coroutine[None, None, None]) -> None:
        """Answer a request in this task.

        Raises:
            Unavailable: :meth:`end` was called.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await work
        except asyncio.CancelledError:
            if self._end is None:
                raise
            task.uncancel()
            raise self._end.copy() from None
        finally:
            self._tasks.discard(task)

    def end(self, error: Unavailable) -> None:
        """Stop all requests. Those whose answer has not begun are answered with the error."""
        self._end = error
        for task in self._tasks:
            task.cancel()


class Admission:
    """ASGI middleware: refuses requests beyond the server's limits. Health and metrics always pass.

    Args:
        held: the requests that are being answered; others may look at them.
        uploads: path → largest body in bytes, for routes that read a posted body themselves.
    """

    def __init__(
        self,
        app: App,
        limits: ServerLimits,
        uploads: Mapping[str, int] | None = None,
        held: InFlight | None = None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._uploads = uploads or {}
        self._held = InFlight() if held is None else held
        self._bodies = BodyMemory(limits.bodies_mib * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        if len(self._held) >= self._limits.in_flight:
            message = f"the server already has {len(self._held)} requests in flight, its limit; try again later"
            raise Unavailable(message, retry_after=1)
        await self._held.run(self._serve(scope, receive, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {READ[name]: value.decode("latin-1") for name, value in scope["headers"] if name in READ}
        upload = self._uploads.get(scope["path"], 0) if scope["method"] == "POST" else 0
        seconds = self._limits.longest_deadline_seconds if upload else read_deadline(headers, self._limits)
        limit = upload or self._limits.body_bytes
        check_length(headers, limit)
        receive = _unpack(scope, receive, limit)
        exchange = Exchange(receive, send, self._bodies)
        arrival = seconds if upload else min(seconds, self._limits.body_seconds)
        clock = asyncio.timeout(arrival)
        try:
            async with clock:
                if upload:
                    await self._app(scope, limit_body(receive, upload), send)
                elif await exchange.read(limit):
                    if arrival < seconds:
                        clock.reschedule((clock.when() or 0) + seconds - arrival)
                    await exchange.run(self._app, scope, clock)
        except TimeoutError:
            if not clock.expired():
                raise
            if arrival < seconds and not exchange.read_whole:
                raise _too_slow(arrival) from None
            raise DeadlineExceeded(
                f"no answer within {seconds:g} s; send less, or allow more time with the header {TIMEOUT_HEADER}"
            ) from None
        finally:
            exchange.forget()


def _unpack(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return the ``receive`` of the body as it was before it was compressed, and let the headers tell of that one.

    Raises:
        UnsupportedMedia: it is compressed in another way than those known.
    """
    coding = read_coding(scope["headers"])
    if coding is None:
        return receive
    packed = (HEADER, b"content-length")
    scope["headers"] = [header for header in scope["headers"] if header[0] not in packed]
    return UnpackedBody(receive, coding, limit).receive


def read_deadline(headers: Mapping[str, str], limits: ServerLimits) -> float:
    """Return the seconds that a request may take: its header's milliseconds up to the limit, else the default.

    Raises:
        InvalidRequest: the header is not a positive whole number.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return limits.deadline_seconds
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) > 0):
        raise InvalidRequest(f"{TIMEOUT_HEADER} must be a positive whole number of milliseconds", param=TIMEOUT_HEADER)
    return min(int(text) / 1000, limits.longest_deadline_seconds)


def _too_slow(seconds: float) -> DeadlineExceeded:
    message = f"the body did not arrive within {seconds:g} s (`limits.body_seconds`)"
    return DeadlineExceeded(f"{message}; send it faster, or in several requests", code="slow_body")


class Exchange:
    """The connection of one request: reads its body, and watches whether the caller leaves.

    Args:
        bodies: the memory for bodies; it is given back by :meth:`forget`.

    Attributes:
        read_whole: whether the whole body has arrived.
    """

    def __init__(self, receive: Receive, send: Send, bodies: BodyMemory) -> None:
        self._receive = receive
        self._send = send
        self._bodies = bodies
        self._taken = 0
        self._body: bytes | None = None
        self.read_whole = False
        self._gone = asyncio.Event()
        self._clock: asyncio.Timeout | None = None
        self._ended = False
        self._left = False  # the caller, before all was sent

    async def read(self, limit: int) -> bool:
        """Read the whole body. Returns False if the caller left before its end.

        Raises:
            PayloadTooLarge: the body is over ``limit`` bytes.
            Unavailable: the bodies of other requests leave too little memory.
        """
        parts: list[bytes] = []
        held = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            parts.append(message.get("body", b""))
            held += len(parts[-1])
            if held > limit:
                raise refuse_body(limit)
            self._bodies.take(len(parts[-1]))
            self._taken = held
            more = message.get("more_body", False)
        self._body = b"".join(parts)
        self.read_whole = True
        return True

    def forget(self) -> None:
        """Give back the memory of the body."""
        self._bodies.give_back(self._taken)
        self._taken = 0

    async def run(self, app: App, scope: Scope, clock: asyncio.Timeout) -> None:
        """Let the application answer. It is cancelled if the caller leaves first.

        Args:
            clock: the deadline; it is stopped when the answer begins.
        """
        task = asyncio.current_task()
        assert task is not None
        earlier = task.cancelling()
        self._clock = clock
        DEADLINE.set(clock)
        watching = asyncio.create_task(self._watch_caller(task))
        try:
            await asyncio.sleep(0)  # the watch goes first: who has left costs no parsing
            await app(scope, self._replay, self._forward)
        except asyncio.CancelledError:
            if not self._left or task.uncancel() > earlier:  # somebody else has cancelled, too
                raise
        finally:
            watching.cancel()

    async def _watch_caller(self, answering: asyncio.Task[None]) -> None:
        """Wait until the caller leaves, and cancel the task that answers, unless all was sent."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if not self._ended:
            self._left = True
            answering.cancel()

    async def _replay(self) -> Message:
        """The application's ``receive``: returns the body, then waits until the caller disconnects."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _forward(self, message: Message) -> None:
        """The application's ``send``: stops the deadline when the answer begins, and notes when it has ended."""
        if message["type"] == "http.response.start" and self._clock is not None:
            self._clock.reschedule(None)
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)
