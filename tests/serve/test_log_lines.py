"""Log lines: what they carry, and that all of them are JSON where JSON is asked for."""

import json
import logging
import sys
import warnings

import pytest

from tureen_serve.log_lines import CALLER, REQUEST_ID, JsonLines, TextLines, print_first_line, start_logging


def test_lines_of_json_carry_the_request(caplog: pytest.LogCaptureFixture) -> None:
    token = REQUEST_ID.set("req_1")
    try:
        raise ValueError("bad\nline")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x",
            logging.ERROR,
            "f",
            1,
            "it %s",
            ("broke",),
            sys.exc_info(),
            extra={"facts": {"status": 500}},
        )
    line = JsonLines().format(record)
    plain = TextLines().format(record)
    REQUEST_ID.reset(token)
    told = json.loads(line)
    assert "\n" not in line
    assert (told["message"], told["level"], told["status"], told["request_id"]) == ("it broke", "error", 500, "req_1")
    assert "ValueError" in told["exception"]
    assert plain.startswith("error   it broke")
    assert plain.endswith("(req_1)")


def test_ours_are_logged_from_the_level_on_and_the_libraries_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("info", "json")
    logging.getLogger("tureen_serve.app").info("ours")
    logging.getLogger("tureen_core.base").info("ours too")
    logging.getLogger("tureen_serve.app").debug("too fine")
    logging.getLogger("a.library").info("theirs")
    logging.getLogger("a.library").warning("their warning")
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["ours", "ours too", "their warning"]


@pytest.mark.filterwarnings("always")
def test_warnings_of_python_are_lines_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("info", "json")
    warnings.warn("two\nlines", stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["logger"] == "py.warnings"


def test_time_is_utc_and_the_caller_is_named() -> None:
    token = CALLER.set("trainer")
    line = JsonLines().format(logging.makeLogRecord({"msg": "x", "created": 0.25}))
    CALLER.reset(token)
    told = json.loads(line)
    assert (told["time"], told["caller"]) == ("1970-01-01T00:00:00.250+00:00", "trainer")


def test_first_line_ends_with_the_address_or_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_first_line("tureen-serve 1 on", "http://127.0.0.1:1", "text")
    print_first_line("tureen-serve 1 on", "http://127.0.0.1:1", "json")
    plain, line = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert plain == told["message"] == "tureen-serve 1 on http://127.0.0.1:1"
    assert (told["address"], told["level"], told["request_id"]) == ("http://127.0.0.1:1", "info", None)
