"""Callers that are slow, silent or gone: their places are free afterwards, and others are answered meanwhile."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.callers import call, call_many, hang_up, read_to_end, write_request
from chaos.sites import SCORE, Site, run_site, tell, write_config
from serve.artifacts import PROBE
from waiting import block_until

from tureen.bench.latencies import summarise_latencies

pytestmark = pytest.mark.long

STREAMS, STORM = 200, 200
IDLE = 3.0
CHAT = {"messages": PROBE[:1], "max_tokens": 200, "logit_bias": {"2": -100}, "stream": True}
GROWTH = 48 * 2**20  # bytes of memory that a second wave may add: a leak of bodies or texts adds as much with each


@pytest.fixture(scope="module")
def site(artifacts: Path) -> Iterator[Site]:
    """A server whose texts take their time, so that they can be abandoned."""
    limits = {"idle_seconds": IDLE, "body_seconds": IDLE}
    with run_site(write_config(artifacts, "callers", limits=limits), token_seconds=0.05) as found:
        found.score()
        yield found


def read_health(site: Site, count: int = 20) -> float:
    """The p99 in milliseconds of /health/live, asked one after another."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        assert site.get("/health/live").status_code == 200
        found.append(time.monotonic() - began)
    return 1000 * (summarise_latencies(found)["p99"] or 0)


def wait_for_handles(site: Site, most: int) -> None:
    block_until(lambda: site.count_handles() <= most)


class Waves:
    """What waves of callers leave behind in a server: memory, threads and handles."""

    def __init__(self, site: Site) -> None:
        self._site, self._handles = site, site.count_handles()
        self._left: list[tuple[int, int]] = []  # bytes and threads after each wave

    def end_one(self) -> None:
        """Wait until the server is idle again, and note what it holds."""
        self._site.wait_until_idle()
        self._left.append((self._site.read_resident(), self._site.count_threads()))

    def end(self) -> str:
        """Check that the last wave left nothing behind, and say what it took."""
        (earlier, threads), (resident, last) = self._left[-2:]
        wait_for_handles(self._site, self._handles + 2)
        assert self._site.score().status_code == 200
        assert last <= threads + 2
        assert resident - earlier < GROWTH
        return f"the last wave took {(resident - earlier) / 2**20:+.1f} MiB, and threads {last - threads:+d}"


def test_streams_that_are_abandoned_free_their_places(site: Site) -> None:
    waves = Waves(site)
    for _ in range(2):
        with call_many(site.url, write_request("/v1/chat/completions", CHAT), STREAMS) as callers:
            for caller in callers[:8]:
                assert caller.recv(20).startswith(b"HTTP/1.1 200")
            block_until(lambda: site.read_work()["tureen_running_texts"] > 0)
            began = time.monotonic()
            hang_up(callers)
        site.wait_until_idle()
        seconds = time.monotonic() - began
        waves.end_one()
    tell(f"{STREAMS} abandoned streams: idle {seconds:.2f} s after the last has left; {waves.end()}")


def test_a_storm_of_callers_who_leave_at_once(site: Site) -> None:
    waves = Waves(site)
    for wave in range(3):
        items = [{"prompt": f"{wave} {place} why?", "candidates": ["because " * 20]} for place in range(16)]
        with call_many(
            site.url, write_request("/v1/score", {"items": items, "rewards": ["helpful"]}), STORM
        ) as callers:
            hang_up(callers)
        live = read_health(site)
        waves.end_one()
    tell(f"3 × {STORM} callers who leave at once: /health/live within {live:.0f} ms; {waves.end()}")


def test_slow_callers_are_ended_and_keep_nobody_waiting(site: Site) -> None:
    """Of each kind 50: a head that never ends, a body that never ends, and a connection that says nothing."""
    handles = site.count_handles()
    body = write_request("/v1/score", SCORE, length=100_000)
    with (
        call_many(site.url, b"POST /v1/score HTTP/1.1\r\nhost: x\r\nx-slow: ", 50) as heads,
        call_many(site.url, body, 50) as bodies,
        call_many(site.url, b"", 50) as silent,
    ):
        began = time.monotonic()
        live = read_health(site)
        assert site.score().status_code == 200
        replies = [read_to_end(caller) for caller in bodies]
        assert {read_to_end(caller) for caller in (*heads, *silent)} == {b""}
        seconds = time.monotonic() - began
    tell(f"150 slow callers: /health/live within {live:.0f} ms; all are ended after {seconds:.1f} s (limit {IDLE:g} s)")
    for reply in replies:
        head, _, content = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 504 ")
        assert json.loads(content)["error"]["code"] == "slow_body"
    site.wait_until_idle()
    wait_for_handles(site, handles + 2)


def test_callers_who_close_their_sending_side_hang_nobody(site: Site) -> None:
    """Such a caller may have left, so it is answered or its connection ends; nothing of it stays."""
    answered = 0
    for _ in range(20):
        with call(site.url, write_request("/v1/score", SCORE)) as caller:
            caller.shutdown(socket.SHUT_WR)
            answered += read_to_end(caller).startswith(b"HTTP/1.1 200")
    with call_many(site.url, write_request("/v1/chat/completions", CHAT), 20) as callers:
        for caller in callers:
            caller.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        for caller in callers:
            read_to_end(caller)
        seconds = time.monotonic() - began
    site.wait_until_idle()
    tell(f"half-closed: {answered} of 20 scores came back; 20 streams are over after {seconds:.1f} s")
    assert site.score().status_code == 200
