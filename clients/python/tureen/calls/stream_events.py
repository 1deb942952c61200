"""The events of a streamed reply: each is read as a chunk, as the end mark or as an error."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx2

from tureen import http_replies
from tureen.errors import ConnectionFailed, ServerFault
from tureen.openai_wire import GeneratedReply
from tureen.retry import Deadline

G = TypeVar("G", bound=GeneratedReply)


class Events(Generic[G]):
    """Parses the events of one stream."""

    def __init__(self, kind: type[G], until: Deadline) -> None:
        self._kind = kind
        self._until = until
        self._ended = False

    def read(self, data: str) -> G | None:
        """Return the chunk in ``data``, or None for the end mark.

        Raises:
            TureenError: the event holds an error of the server.
            DeadlineExceeded: the deadline has passed.
        """
        self._until.check()
        if data == "[DONE]":
            self._ended = True
            return None
        try:
            return http_replies.parse_json(self._kind, data)
        except ServerFault as unreadable:
            raise http_replies.read_streamed_fault(data) or unreadable from None

    def lost(self, error: httpx2.RequestError, url: str) -> ConnectionFailed:
        """Return the error for a stream that was cut off.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        self._until.check(error)
        return http_replies.make_connection_error(error, url)

    def finish(self) -> None:
        """Check that the stream ended with its end mark.

        Raises:
            ConnectionFailed: there was no end mark.
        """
        if not self._ended:
            raise ConnectionFailed("the stream ended before its end mark: call again")


@dataclass(frozen=True)
class OpenStream(Generic[G]):
    """A started stream: the response with its body unread, and the parser of its events."""

    response: httpx2.Response
    events: Events[G]
