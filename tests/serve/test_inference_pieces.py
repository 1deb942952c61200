"""Work beside the event loop ends with its caller: what has not begun never begins, and what runs ends at its piece."""

import asyncio
import threading

import pytest
from waiting import wait_until

from tureen_serve.inference.pieces import GoOn, run_pieces


def test_work_runs_in_another_thread_and_its_result_comes_back() -> None:
    async def work() -> None:
        found = await run_pieces(lambda _: threading.get_ident())
        assert found != threading.get_ident()

    asyncio.run(work())


def test_an_error_comes_back() -> None:
    def fail(go_on: GoOn) -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(run_pieces(fail))


def test_a_caller_who_left_frees_the_thread_at_the_next_piece() -> None:
    async def work() -> None:
        begun, piece = threading.Event(), threading.Event()
        pieces = 0
        ended = threading.Event()

        def count(go_on: GoOn) -> None:
            nonlocal pieces
            try:
                for _ in range(1000):
                    go_on()
                    pieces += 1
                    begun.set()
                    piece.wait()
            finally:
                ended.set()

        task = asyncio.create_task(run_pieces(count))
        await wait_until(begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        piece.set()
        await wait_until(ended.is_set)
        assert pieces == 1

    asyncio.run(work())


def test_work_that_waits_for_a_thread_never_begins_if_its_caller_leaves() -> None:
    async def work() -> None:
        from concurrent.futures import ThreadPoolExecutor

        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        gate, begun = threading.Event(), []
        first = asyncio.create_task(run_pieces(lambda _: gate.wait()))
        second = asyncio.create_task(run_pieces(lambda _: begun.append(True)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        gate.set()
        assert await first
        assert await run_pieces(lambda _: "next") == "next"
        assert begun == []

    asyncio.run(work())
