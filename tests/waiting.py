"""Waits for a state: they end when it is there, and are patient on a busy machine. And a clock that a test moves on."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 60.0


def block_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait in this thread for what other threads or processes bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it has not come about in {seconds:g} seconds"
        time.sleep(0.005)


async def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait in this task for what other tasks, threads or processes bring about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def let_others_run(rounds: int = 100) -> None:
    """Let all tasks of this loop go as far as they can without the help of threads or timers."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time runs ahead by ``ahead`` seconds."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def pass_time(seconds: float) -> None:
    """Move the time of a :class:`ClockLoop` on; timers that are due by then have run when this returns."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    loop.ahead += seconds
    await asyncio.sleep(1e-6)
    await let_others_run()


def run_on_clock(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a :class:`ClockLoop`."""
    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        return runner.run(work)
