"""Compile the grammars of requests in one thread of their own, so that neither the event loop nor other work waits."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tureen.errors import Unavailable, Unprocessable
from tureen_serve.inference.registry import TextLane
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.runtimes.grammar_proof import GrammarProver, GrammarSource
from tureen_serve.runtimes.grammars import Grammar, GrammarBook

MOST_WAITING = 32


class GrammarDesk:
    """The thread that compiles, and the process that proves grammars first. Both begin at the first use."""

    def __init__(self) -> None:
        self._prover = GrammarProver()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._waiting = 0

    async def compile(self, book: GrammarBook, source: GrammarSource) -> Grammar:
        """Compile a grammar, or find it among those that are kept.

        Raises:
            Unprocessable: it cannot be used; see :meth:`GrammarBook.compile`.
            Unavailable: too many grammars wait.
        """
        found = book.find(source)
        if found is not None:
            return found
        if self._waiting >= MOST_WAITING:
            raise Unavailable(f"{self._waiting} grammars wait to be compiled; try again", retry_after=5)
        self._waiting += 1
        try:
            work = partial(book.compile, source, self._prover)
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the thread and the process. What waits never begins."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._prover.close()


async def compile_for_lane(desk: GrammarDesk, lane: TextLane, source: GrammarSource) -> Grammar:
    """Compile a grammar for the texts of a lane. Raises as :meth:`GrammarDesk.compile`.

    An upstream, which may ignore a grammar in silence, is given none.
    """
    if isinstance(lane, UpstreamLane):
        message = f"{lane.name} is behind another server, which may ignore a grammar; leave `{source.param}` out"
        raise Unprocessable(message, param=source.param, code="unsupported_parameter")
    return await desk.compile(lane.grammars, source)
