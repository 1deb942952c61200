"""What commands show: whole lines and no bars in a file or a pipe, a coloured log and bars in a terminal."""

import io
import logging
import re
import sys

import httpx2
import pytest
from rich.logging import RichHandler
from rich.table import Table

from tureen_train.terminal import make_console, show_progress, start_log

LONG = " ".join(["word"] * 100)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> list[logging.Handler]:
    """The handlers that the log is given; they are not kept for other tests."""
    found: list[logging.Handler] = []
    monkeypatch.setattr("logging.basicConfig", lambda handlers, **_: found.extend(handlers))
    return found


def emit(handler: logging.Handler, message: str) -> None:
    handler.emit(logging.LogRecord("tureen.train", logging.INFO, "file.py", 1, message, (), None))


def test_an_entry_in_a_file_is_one_line_with_date_and_level(
    monkeypatch: pytest.MonkeyPatch, handlers: list[logging.Handler]
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    start_log("INFO")
    (handler,) = handlers
    emit(handler, LONG)
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ INFO {LONG}\n", stream.getvalue())


def test_requests_of_the_client_are_no_entries(
    monkeypatch: pytest.MonkeyPatch, handlers: list[logging.Handler]
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    start_log("INFO")
    assert handlers
    assert not logging.getLogger(httpx2.__name__).isEnabledFor(logging.INFO)


def test_a_terminal_has_a_coloured_log(monkeypatch: pytest.MonkeyPatch, handlers: list[logging.Handler]) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    start_log("INFO")
    assert isinstance(handlers[0], RichHandler)


def test_a_table_in_a_file_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table("figure")
    table.add_row(LONG)
    make_console().print(table)
    assert LONG in stream.getvalue()


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), False), (Terminal(), True)], ids=["file", "terminal"])
def test_bars_are_shown_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with show_progress() as progress:
        progress.advance(progress.add_task("scoring", total=2))
    assert ("scoring" in stream.getvalue()) is shown
