"""Turns on the event loop: in each pass of the loop one request reads its body, so that health is answered between."""

import asyncio
from collections import deque


class LoopTurns:
    """Lets callers go on one after another, in the order in which they came, and at most one in a pass of the loop.

    Without turns, the bodies of hundreds of requests that arrive together are all read in one pass, and nothing else is
    answered until the last of them is read. A turn that is free costs a few microseconds.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn. A caller that is cancelled leaves its place."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._pass_on)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _pass_on(self) -> None:
        """Give the turn to the next that still waits. It runs in the next pass, and this again in the one after."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._taken = False
