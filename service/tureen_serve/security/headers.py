"""Headers of every reply: browsers do not guess types, keep nothing, frame nothing, and load nothing for our pages."""

from collections.abc import Iterable

from tureen_serve.telemetry import App, Message, Receive, Scope, Send

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
POLICY = b"content-security-policy"
OWN = {POLICY, b"cache-control"}
NOTHING = b"default-src 'none'; frame-ancestors 'none'"

RawHeaders = Iterable[tuple[bytes, bytes]]


class SafeHeaders:
    """ASGI middleware: adds the headers to every reply."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": complete_headers(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, safe if scope["type"] == "http" else send)


def complete_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return a reply's headers with those that every reply has.

    A page may have a content policy of its own, and a file that never changes may be kept.
    """
    given = [*headers]
    own = {name for name, _ in given} & OWN
    return [*given, *(each for each in (*ALWAYS, (POLICY, NOTHING)) if each[0] not in own)]
