"""Loops against a server over a socket: who waits for whom is counted, not timed."""

import asyncio
import random
import statistics
from typing import Any

import pytest
from client.standin import StandIn, free_url, hang_up, keep_silent, refusal, serving

from tureen.bench.loops import Bounds, draw_arrivals, run_load
from tureen.bench.trial import TIMED_OUT, Load
from tureen.bench.workloads import Texts, make_workload
from tureen.errors import ConnectionFailed, NotFound

WORK = make_workload("score", {}, Texts(8, 1, 0))
LONG = Bounds(seconds=60, requests=24, timeout=60)


class Counter:
    """A server that answers when ``wanted`` requests are there at once, and every request after that at once."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.now = self.most = self.all = 0
        self.full = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        self.all += 1
        if self.all > 1:  # the first does not count
            self.now += 1
            self.most = max(self.now, self.most)
            if self.now == self.wanted:
                self.full.set()
            await self.full.wait()
            self.now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def test_an_open_loop_does_not_wait_for_replies() -> None:
    """More requests are there at once than one pool of connections has, though none has been answered."""
    server = Counter(wanted=24)
    with serving(server) as url:
        trials = run_load(url, WORK, Load(rate=500), LONG, seed=1)
    assert [each.status for each in trials] == [200] * 24
    assert (server.most, server.all) == (24, 25)


def test_a_closed_loop_has_so_many_requests_at_a_time() -> None:
    server = Counter(wanted=5)
    with serving(server) as url:
        trials = run_load(url, WORK, Load(concurrency=5), LONG, seed=1)
    assert [each.answered for each in trials] == [True] * 24
    assert (server.most, server.all) == (5, 25)


def test_a_latency_counts_from_when_the_request_was_due() -> None:
    """The server answers nobody until all are there, so the first to be due has waited for the last."""
    with serving(Counter(wanted=24)) as url:
        trials = run_load(url, WORK, Load(rate=100), LONG, seed=1)
    first, last = min(each.due for each in trials), max(each.due for each in trials)
    assert max(each.latency for each in trials) >= last - first
    assert all(each.due <= each.sent <= each.ended for each in trials)


def test_refusals_and_lost_connections_are_counted_and_not_sent_again(standin: StandIn) -> None:
    standin.fail(
        refusal(503, "queue_full"), refusal(429, "rate_limited", retry_after="3"), refusal(503, "full"), hang_up
    )
    trials = run_load(standin.url, WORK, Load(concurrency=1), Bounds(60, 5, 60), seed=1)
    assert [each.status for each in trials] == [429, 503, None, 200, 200]
    assert [each.told_when for each in trials] == [True, False, False, False, False]
    assert trials[2].error == "RemoteProtocolError"
    assert len(standin.seen) == 6
    assert standin.seen[0].headers["x-request-timeout-ms"] == "60000"


def test_a_silent_server_costs_the_time_of_one_request(standin: StandIn) -> None:
    standin.fail(refusal(503, "queue_full"), *[keep_silent] * 3)
    trials = run_load(standin.url, WORK, Load(rate=100), Bounds(60, 3, 0.2), seed=1)
    assert [each.error for each in trials] == [TIMED_OUT] * 3


def test_a_server_that_cannot_answer_at_all_is_an_error(standin: StandIn) -> None:
    with pytest.raises(ConnectionFailed, match="no server answers"):
        run_load(free_url(), WORK, Load(rate=1), LONG, seed=1)
    standin.fail(refusal(404, "unknown_reward", "unknown reward 'nix'"))
    with pytest.raises(NotFound, match="nix"):
        run_load(standin.url, WORK, Load(rate=1), LONG, seed=1)
    assert len(standin.seen) == 1


def test_arrivals_are_a_poisson_process() -> None:
    found = list(draw_arrivals(50.0, Bounds(200.0, 10**6, 1.0), random.Random(3)))
    gaps = [later - sooner for sooner, later in zip(found, found[1:], strict=False)]
    assert 9_600 < len(found) < 10_400
    assert statistics.mean(gaps) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.05)
    assert found == sorted(found)
    assert len(list(draw_arrivals(50.0, Bounds(200.0, 7, 1.0), random.Random(3)))) == 7
