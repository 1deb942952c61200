"""A call of the loader: its turn lasts as long as its thread, whoever waits for it."""

import asyncio
import threading

import pytest
from waiting import let_others_run, wait_until

from tureen_serve.changes.loader_call import call_in_turn


def test_a_caller_who_leaves_keeps_the_turn_until_the_thread_ends_and_its_result_is_discarded() -> None:
    gate, begun, dropped = threading.Event(), threading.Event(), list[str]()

    def load() -> str:
        begun.set()
        assert gate.wait(60)
        return "late"

    async def run() -> None:
        turn = asyncio.Lock()
        leaving = asyncio.create_task(call_in_turn(turn, load, dropped.append))
        await wait_until(begun.is_set)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        waiting = asyncio.create_task(call_in_turn(turn, lambda: "next", dropped.append))
        await let_others_run()
        assert turn.locked()
        assert not waiting.done()
        gate.set()
        assert await waiting == "next"
        assert (dropped, turn.locked()) == (["late"], False)

    asyncio.run(run())


def test_a_caller_who_leaves_before_its_turn_is_never_called() -> None:
    async def run() -> None:
        turn, called = asyncio.Lock(), list[str]()
        await turn.acquire()
        leaving = asyncio.create_task(call_in_turn(turn, lambda: called.append("it"), lambda _: None))
        await let_others_run()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        turn.release()
        await let_others_run()
        assert called == []

    asyncio.run(run())
