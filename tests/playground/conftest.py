"""A Chromium, and the starter's server, for all tests of the playground."""

import os
from collections.abc import Iterator

import pytest
from playground.browsing import AXE, CHROMIUM, chromium
from playwright.sync_api import Browser
from serve.processes import Process
from waiting import block_until

WANTED = os.environ.get("TUREEN_PLAYGROUND", "")  # or the address of a starter's server that runs already
LONGEST = 900  # seconds of a test, the start of the server included


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if not WANTED:
        reason = "`make test-playground` runs this"
    elif CHROMIUM is None or not AXE.exists():
        reason = "NOT TESTED: the playground in a browser, because chromium or npm is not there"
    for item in items:
        if item.path.parent.name == "playground":
            item.add_marker(pytest.mark.skip(reason=reason) if reason else pytest.mark.timeout(LONGEST))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the starter's six rewards and four experts."""
    if WANTED.startswith("http"):
        yield WANTED
        return
    folder = tmp_path_factory.mktemp("batches")
    batches = {"TUREEN_BATCHES__ENABLED": "true", "TUREEN_BATCHES__FOLDER": str(folder)}
    running = Process("--starter", "--port", "0", **batches)
    try:
        block_until(lambda: running.get("/health/ready").status_code == 200, LONGEST)
        yield running.address
    finally:
        running.process.terminate()
        running.end()
