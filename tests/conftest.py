"""What all tests share: servers that leave the developer's own batches alone, and a real PostgreSQL for who asks."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Postgres, postgres

os.environ.setdefault("TUREEN_BATCHES__ENABLED", "false")

SLOW_FOLDERS = {Path(__file__).parent / name for name in ("journeys", "gpu", "vllm_runtime")}
SLOW_SECONDS = 1200


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes give a test no name: what is packed holds the second of it, and two workers would collect other tests."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with real models, and those in ``SLOW_FOLDERS``, more time than the setting ``timeout``."""
    for item in items:
        slow = item.get_closest_marker("real") or not SLOW_FOLDERS.isdisjoint(item.path.parents)
        if slow and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Puts logging back as it was: a command that runs in this process logs to a stream that ends with its test."""
    loggers = [logging.getLogger(name) for name in (None, "tureen_serve", "tureen_core", "tureen_serve.audit")]
    found = [(logger, logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, propagate, handlers in found:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL of this session's own."""
    with postgres() as found:
        yield found
