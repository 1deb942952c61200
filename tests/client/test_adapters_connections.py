"""Clients are shared by those who ask at the same time, and closed by the last."""

import asyncio
import threading

import pytest
from client.standin import StandIn

from tureen import Retries
from tureen.adapters.connections import share_async_client, share_client
from tureen.adapters.options import Server

ITEM = {"prompt": "Why?", "candidates": ["Because."]}


def test_threads_that_ask_together_share_a_client_until_the_last_leaves(standin: StandIn) -> None:
    server = Server(standin.url)
    with share_client(server) as first:
        with share_client(Server(standin.url)) as second:
            assert second is first
        assert first.score([ITEM]).data
        with share_client(Server(standin.url, timeout=5)) as other:
            assert other is not first
    with pytest.raises(RuntimeError, match="closed"):
        first.score([ITEM])
    with share_client(server) as later:
        assert later is not first


def test_a_client_is_left_also_on_an_error(standin: StandIn) -> None:
    def fail() -> None:
        with share_client(Server(standin.url)) as client:
            seen.append(client)
            raise KeyError

    seen: list[object] = []
    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
    assert seen[0] is not seen[1]


def test_many_threads_may_come_and_go(standin: StandIn) -> None:
    def ask() -> None:
        with share_client(Server(standin.url)) as client:
            replies.append(client.score([ITEM]))

    replies: list[object] = []
    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 32


def test_tasks_share_connections_and_loops_do_not(standin: StandIn) -> None:
    async def ask() -> object:
        async with share_async_client(Server(standin.url)) as client:
            await client.score([ITEM])
            return client

    async def all_at_once() -> set[object]:
        return set(await asyncio.gather(*(ask() for _ in range(200))))

    [first] = asyncio.run(all_at_once())
    assert len({seen.port for seen in standin.seen}) <= 100
    [second] = asyncio.run(all_at_once())
    assert second is not first


def test_a_task_that_is_cancelled_leaves_too(standin: StandIn) -> None:
    async def stay() -> None:
        async with share_async_client(Server(standin.url)) as client:
            clients.append(client)
            await asyncio.Event().wait()

    async def cancel() -> None:
        task = asyncio.create_task(stay())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with share_async_client(Server(standin.url)) as client:
            clients.append(client)

    clients: list[object] = []
    asyncio.run(cancel())
    assert clients[0] is not clients[1]


def test_a_server_is_waited_for_two_minutes() -> None:
    retries = Server().retries
    assert isinstance(retries, Retries)
    waits = [min(retries.first * 2**number, retries.most) for number in range(retries.limit)]
    assert 100 < sum(waits) < 140
