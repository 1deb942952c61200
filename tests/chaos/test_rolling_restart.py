"""Servers behind a proxy are restarted one after another under load: no request fails."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest
from chaos.proxy import run_proxy, wait_until_all_up
from chaos.sites import tell, write_config
from replicas import Replica

from tureen.bench.loops import Bounds, LoadRun
from tureen.bench.pools import Pools
from tureen.bench.trial import Load, Trial
from tureen.bench.workloads import Texts, make_workload
from tureen_serve.starter.demo import find_free_port

pytestmark = pytest.mark.long

RATE, DRAIN = 20.0, 1.0
WORK = make_workload("score", {"rewards": ["helpful"]}, Texts(8, 1, 0))


class Stream(threading.Thread):
    """A load that runs until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._go_on = True
        self.trials: list[Trial] = []

    def run(self) -> None:
        """Send by the clock, in short pieces."""

        async def send() -> None:
            async with Pools(self._url, 60) as server:
                first = 1
                while self._go_on:
                    piece = LoadRun(server, WORK, Bounds(0.5, 1000, 60), first)
                    await piece.run(Load(rate=RATE), first)
                    self.trials += piece.trials
                    first += 1000

        asyncio.run(send())

    def stop(self) -> list[Trial]:
        self._go_on = False
        self.join()
        return self.trials


def test_a_rolling_restart_under_load_fails_no_request(artifacts: Path, tmp_path: Path) -> None:
    ports = [find_free_port() for _ in range(2)]
    configs = [write_config(artifacts, f"rolling-{port}", port=port, limits={"drain_seconds": DRAIN}) for port in ports]
    servers = [Replica(config, TUREEN_BATCHES__ENABLED="false") for config in configs]
    try:
        for server in servers:
            server.ready()
        with run_proxy(tmp_path, find_free_port(), ports) as url:
            stream = Stream(url)
            stream.start()
            statuses = []
            for server in servers:
                statuses.append(server.end())
                server.start()
                server.ready()
                wait_until_all_up(url)
            trials = stream.stop()
    finally:
        for server in servers:
            server.end()
    found = Counter(each.status or each.error for each in trials)
    failed = len(trials) - found[200]
    tell(
        f"rolling restart of 2 servers behind HAProxy at {RATE:g} requests/s: {failed} of {len(trials)} failed {found}"
    )
    assert statuses == [0, 0]
    assert len(trials) > 20
    assert set(found) == {200}
