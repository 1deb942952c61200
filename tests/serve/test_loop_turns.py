"""Turns: one in a pass of the loop, in order, and none is lost with a caller who leaves."""

import asyncio
import itertools
from typing import Any

import pytest
from serve.border import Caller, running
from serve.counting import CountingEngine

from tureen_serve.api import strict_route
from tureen_serve.loop_turns import LoopTurns
from tureen_serve.strict_json import parse_json


class Passes:
    """Counts the passes of the running loop."""

    def __init__(self) -> None:
        self.count = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def end(self) -> None:
        self._handle.cancel()


async def take_turns(count: int, leaving: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """Ask for turns together. Returns each caller's number and the pass in which it had its turn."""
    turns, passes, found = LoopTurns(), Passes(), []

    async def take(number: int) -> None:
        await turns.take()
        found.append((number, passes.count))

    tasks = [asyncio.create_task(take(number)) for number in range(count)]
    await asyncio.sleep(0)
    for number in leaving:
        tasks[number].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    again = passes.count
    await take(count)
    assert found[-1][1] - again <= 1  # nobody holds the turn
    passes.end()
    return found[:-1]


def test_each_has_a_pass_of_its_own_in_order() -> None:
    found = asyncio.run(take_turns(20))
    assert [number for number, _ in found] == list(range(20))
    assert all(later[1] > earlier[1] for earlier, later in itertools.pairwise(found))


def test_who_leaves_takes_no_turn_along() -> None:
    found = asyncio.run(take_turns(6, leaving=(1, 2, 5)))
    assert [number for number, _ in found] == [0, 3, 4]


def test_a_free_turn_is_taken_without_waiting() -> None:
    async def run() -> None:
        passes = Passes()
        await LoopTurns().take()
        assert passes.count == 1
        passes.end()

    asyncio.run(run())


def test_bodies_that_arrive_together_are_read_in_passes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    body = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}

    async def run() -> set[int | None]:
        passes = Passes()

        def parse(content: bytes, **settings: Any) -> Any:
            read.append(passes.count)
            return parse_json(content, **settings)

        monkeypatch.setattr(strict_route, "parse_json", parse)
        async with running(CountingEngine()) as app:
            callers = [Caller(app, "/v1/score", body) for _ in range(12)]
            found = {(await caller.done()).status for caller in callers}
        passes.end()
        return found

    assert asyncio.run(run()) == {200}
    assert len(set(read)) == len(read) == 12
