"""One server for the clients that need no other."""

from collections.abc import Iterator

import pytest
from clients.programs import serving
from serve.processes import Process


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("clients")) as running:
        yield running
