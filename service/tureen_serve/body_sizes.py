"""The sizes of requests' bodies: of each one, and of all together. Pure."""

from collections.abc import Mapping

from tureen.errors import PayloadTooLarge, Unavailable
from tureen_serve.telemetry import Message, Receive


def check_length(headers: Mapping[str, str], limit: int) -> None:
    """Check the declared length of a body before it is read.

    Raises:
        PayloadTooLarge: it is over ``limit`` bytes.
    """
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise refuse_body(limit)


def refuse_body(limit: int) -> PayloadTooLarge:
    """Make the error of a body that is over ``limit`` bytes."""
    return PayloadTooLarge(f"the body is over {limit} bytes; split it into several requests")


def limit_body(receive: Receive, limit: int) -> Receive:
    """Wrap ``receive`` so that it raises PayloadTooLarge after ``limit`` bytes."""
    held = 0

    async def counted() -> Message:
        nonlocal held
        message = await receive()
        held += len(message.get("body", b""))
        if held > limit:
            raise refuse_body(limit)
        return message

    return counted


class BodyMemory:
    """The memory for the bodies of all requests together.

    Args:
        capacity: in bytes.

    Attributes:
        held: the bytes that are in use.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.held = 0

    def take(self, count: int) -> None:
        """Take memory for ``count`` bytes. One body of any size always fits if there is no other.

        Raises:
            Unavailable: the other bodies leave too little.
        """
        if self.held and self.held + count > self._capacity:
            message = f"the bodies of other requests fill {self._capacity} bytes (`limits.bodies_mib`); try again later"
            raise Unavailable(message, code="queue_full", retry_after=1)
        self.held += count

    def give_back(self, count: int) -> None:
        """Give memory back."""
        self.held -= count
