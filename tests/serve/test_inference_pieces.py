"""Work beside the event loop ends with its caller: what has not begun never begins, and what runs ends at its piece."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import PATIENCE, wait_until

from tureen_serve.inference import pieces
from tureen_serve.inference.demand import TENANT
from tureen_serve.inference.pieces import CORES, GoOn, run_pieces
from tureen_serve.inference.text_inputs import FinishedText, Group
from tureen_serve.inference.text_limits import exceed_bytes


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
        counted = 0
        ended = threading.Event()

        def count(go_on: GoOn) -> None:
            nonlocal counted
            try:
                for _ in range(1000):
                    go_on()
                    counted += 1
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
        assert counted == 1

    asyncio.run(work())


def test_work_that_waits_for_a_thread_never_begins_if_its_caller_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
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

    monkeypatch.setattr(pieces, "SMALL", ThreadPoolExecutor(1))
    asyncio.run(work())


def test_small_work_does_not_wait_behind_large_work() -> None:
    async def work() -> None:
        gate = threading.Event()
        large = [asyncio.create_task(run_pieces(lambda _: gate.wait(), large=True)) for _ in range(CORES + 4)]
        assert await run_pieces(lambda _: "small") == "small"
        gate.set()
        assert await asyncio.gather(*large) == [True] * len(large)

    asyncio.run(work())


def test_no_more_threads_work_than_there_are_cores() -> None:
    names = set[str]()

    def note(_: GoOn) -> None:
        names.add(threading.current_thread().name)

    async def work() -> None:
        await asyncio.gather(*(run_pieces(note, large) for large in (False, True) for _ in range(100)))

    asyncio.run(work())
    small = {name for name in names if name.startswith("small")}
    assert len(small) <= CORES
    assert len(names - small) <= max(1, CORES // 2)


def test_work_goes_on_in_the_context_of_its_caller() -> None:
    async def work() -> None:
        TENANT.set("red")
        assert await run_pieces(lambda _: TENANT.get()) == "red"

    asyncio.run(work())


def test_a_loop_that_has_ended_is_not_missed() -> None:
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def wait(_: GoOn) -> None:
        begun.set()
        gate.wait()
        ended.set()

    async def leave() -> None:
        waiting = asyncio.create_task(run_pieces(wait))
        await wait_until(begun.is_set)
        waiting.cancel()

    asyncio.run(leave())
    gate.set()
    assert ended.wait(PATIENCE)


def test_the_texts_of_a_request_are_large_by_their_bytes() -> None:
    assert exceed_bytes([FinishedText("a" * 60), FinishedText("b" * 60)], 100)
    assert not exceed_bytes([FinishedText("a" * 60)], 100)
    assert exceed_bytes([Group([[{"content": "a"}]] * 2, [{"content": "b" * 60}])], 120)
