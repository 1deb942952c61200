"""Log lines: for people or as JSON, with the request's id and its caller. They hold no texts and no keys."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
CALLER: ContextVar[str | None] = ContextVar("caller", default=None)  # the name of the request's key, never the key
OURS = ("tureen_serve", "tureen_core")


class TextLines(logging.Formatter):
    """Log lines for people: ``level message (request id)``."""

    def format(self, record: logging.LogRecord) -> str:
        name = REQUEST_ID.get()
        return f"{record.levelname.lower():7} {super().format(record)}{f' ({name})' if name else ''}"


class JsonLines(logging.Formatter):
    """Log lines for machines: one JSON object a line.

    It has ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, ``request_id`` and ``caller``, and the facts of
    the record: of a request its ``method``, ``route``, ``status``, ``fault``, ``seconds`` and ``first_byte_seconds``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            "caller": CALLER.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(level: str, form: str) -> None:
    """Log to standard error: our messages from ``level`` on, those of libraries from ``warning`` on.

    Args:
        form: ``text`` or ``json``. With ``json``, warnings of Python are lines of JSON too.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line has them
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(form == "json")
    for own in OURS:
        logging.getLogger(own).setLevel(level.upper())


def print_first_line(message: str, address: str, form: str) -> None:
    """Print the server's first line, which ends with its address, on standard output.

    Args:
        form: ``text`` or ``json``. The line of JSON has the address as ``address`` too.
    """
    line = f"{message} {address}"
    if form == "json":
        told = {"name": "tureen_serve", "levelname": "INFO", "msg": line, "facts": {"address": address}}
        line = JsonLines().format(logging.makeLogRecord(told))
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
