"""Work in a thread: results, errors of every kind, and what becomes of a result that nobody takes."""

import asyncio
import threading

import pytest
from waiting import wait_until

from tureen_serve.inference.daemon_thread import has_daemon_work, run_in_daemon_thread


class Panic(BaseException):
    """As PyO3 raises for a panic in Rust code."""


def test_results_and_errors_reach_the_caller() -> None:
    def fail() -> None:
        raise LookupError("of the inside")

    def panic() -> None:
        raise Panic("index out of bounds")

    async def work() -> None:
        dropped: list[int] = []
        assert await run_in_daemon_thread(lambda: 7, dropped.append) == 7
        with pytest.raises(LookupError, match="of the inside"):
            await run_in_daemon_thread(fail)
        with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
            await run_in_daemon_thread(panic)
        assert dropped == []

    asyncio.run(work())


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_nobody_takes_is_discarded(fails: bool) -> None:
    gate, ended = threading.Event(), threading.Event()

    def compute() -> int:
        assert gate.wait(20)
        ended.set()
        if fails:
            raise LookupError
        return 7

    async def work() -> None:
        dropped: list[int] = []
        waiting = asyncio.create_task(run_in_daemon_thread(compute, dropped.append))
        await asyncio.sleep(0)
        waiting.cancel()
        assert has_daemon_work()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        await wait_until(ended.is_set)
        if not fails:
            await wait_until(lambda: dropped == [7])
        assert len(dropped) == (not fails)

    asyncio.run(work())
