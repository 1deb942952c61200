"""Blocking calls beside the event loop."""

import asyncio
import threading

import pytest
from waiting import wait_until

from tureen_serve.batches.io_threads import IoThreads


def test_a_call_is_made_in_a_thread_of_its_own_and_its_result_comes_back() -> None:
    async def work() -> None:
        io = IoThreads()
        assert (await io(lambda: threading.current_thread().name)).startswith("batches")
        assert await io(pow, 2, exp=5) == 32
        with pytest.raises(ZeroDivisionError):
            await io(lambda: 1 // 0)
        io.close()

    asyncio.run(work())


def test_the_loop_goes_on_meanwhile() -> None:
    async def work() -> None:
        io, begun, release = IoThreads(1), threading.Event(), threading.Event()

        def call() -> bool:
            begun.set()
            return release.wait(60)

        waiting = asyncio.create_task(io(call))
        await wait_until(begun.is_set)
        assert not waiting.done()
        release.set()
        assert await waiting
        io.close()

    asyncio.run(work())


def test_whoever_is_cancelled_does_not_end_the_call_and_closing_waits_for_it() -> None:
    async def work() -> None:
        io, begun, release, done = IoThreads(1), threading.Event(), threading.Event(), threading.Event()

        def call() -> None:
            begun.set()
            release.wait(10)
            done.set()

        waiting = asyncio.create_task(io(call))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        await asyncio.to_thread(io.close)
        assert done.is_set()

    asyncio.run(work())
