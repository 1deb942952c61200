"""Streams that end, break off, carry errors, or are left early, against a real server."""

import asyncio
from typing import Any

import pytest
from client.standin import StandIn, drip, fall_silent, hang_up, stream_of

from tureen import AsyncClient, Client, ConnectionFailed, DeadlineExceeded, ServerFault, Unavailable


def test_an_error_within_a_stream_is_raised_after_what_came(client: Any, standin: StandIn) -> None:
    chunk = '{"choices": [{"delta": {"content": "Hel"}}]}'
    standin.fail(stream_of(chunk, '{"error": {"message": "dead", "type": "overloaded_error", "code": "engine_dead"}}'))
    with pytest.raises(Unavailable, match="dead"):
        client.read("chat", "Hello")


@pytest.mark.parametrize("data", [(), ('{"choices": []}',)])
def test_a_stream_without_its_end_mark_broke_off(client: Any, standin: StandIn, data: tuple[str, ...]) -> None:
    standin.fail(stream_of(*data))
    with pytest.raises(ConnectionFailed, match="before its end"):
        client.read("chat", "Hello")


def test_an_answer_that_is_no_stream_is_refused(client: Any, standin: StandIn) -> None:
    standin.fail(hang_up)
    with pytest.raises(ConnectionFailed, match="text/event-stream"):
        client.read("chat", "Hello")


def test_a_stream_event_that_cannot_be_read_is_the_servers_fault(client: Any, standin: StandIn) -> None:
    standin.fail(stream_of('{"choices": 3}'))
    with pytest.raises(ServerFault, match="choices: should be a valid list"):
        client.read("chat", "Hello")


def test_leaving_a_stream_early_frees_its_connection(standin: StandIn) -> None:
    with Client(standin.url) as client:
        with client.chat("Hello", stream=True) as stream:
            assert next(iter(stream)).text == "plain"
        assert client.chat("Hello").text == "plain says Hello"


def test_leaving_an_asynchronous_stream_early_frees_its_connection(standin: StandIn) -> None:
    async def talk() -> str:
        async with AsyncClient(standin.url) as client:
            async with await client.chat("Hello", stream=True) as stream:
                async for chunk in stream:
                    assert chunk.text == "plain"
                    break
            return (await client.chat("Hello")).text

    assert asyncio.run(talk()) == "plain says Hello"


def test_a_deadline_ends_a_stream_too(client: Any, standin: StandIn) -> None:
    standin.fail(drip())
    with pytest.raises(DeadlineExceeded):
        client.read("chat", "Hello", deadline=0.05)


def test_a_stream_that_falls_silent_ends_at_the_deadline(client: Any, standin: StandIn) -> None:
    standin.fail(fall_silent)
    with pytest.raises(DeadlineExceeded):
        client.read("chat", "Hello", deadline=0.05)
