"""``tureen bench`` on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from client.standin import StandIn, refusal
from typer.testing import CliRunner, Result

from tureen import cli

SHORT = ("--seconds", "60", "--requests", "4", "--words", "8")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(standin: StandIn, *arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(cli.app, ["bench", *map(str, arguments), "--url", standin.url], **options)


def test_a_table_with_a_row_for_each_load(standin: StandIn, tmp_path: Path) -> None:
    standin.fail(refusal(503, "queue_full"), refusal(503, "queue_full", retry_after="1"))
    result = run(standin, *SHORT, "--rate", "50", "--rate", "100", "-r", "length", "--plot", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if "/s " in line and "sent" not in line]
    assert ["50/s" in rows[0], "503: 1" in rows[0], "100/s" in rows[1], "503" in rows[1]] == [True, True, True, False]
    assert "without Retry-After: 0" in result.stdout
    assert (tmp_path / "out.png").exists()
    assert len(standin.seen) == 10  # one before each load does not count
    assert standin.seen[0].json["rewards"] == ["length"]
    bodies = {each.body for each in standin.seen}
    assert len(bodies) == 9  # the one before is the same each time


def test_json_has_all_figures(standin: StandIn) -> None:
    (found,) = json.loads(run(standin, *SHORT, "--json").stdout)["data"]
    assert (found["concurrency"], found["rate"], found["sent"], found["answered"]) == (8, None, 4, 4)
    assert found["latency"]["p50"] > 0
    assert found["measured"]["p99_9"] > 0


def test_a_file_of_items_is_answered(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    result = run(standin, *SHORT, "--concurrency", "1", "--file", path, "--to", "chat", "-p", "academy=1")
    assert result.exit_code == 0, result.output
    assert "p99 as measured" in result.stdout
    asked = standin.seen[1].json
    assert (asked["messages"][0]["content"], asked["max_tokens"], asked["preferences"]) == ("Why?", 16, {"academy": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1", "--concurrency", "1"], "not both"),
        (["--rate", "nan"], "Invalid value for '--rate'"),
        (["--to", "chat", "-r", "length"], "--reward does not go with --to chat"),
        (["--model", "smol"], "--model does not go with --to score"),
    ],
)
def test_wrong_usage_exits_with_2(standin: StandIn, arguments: list[str], message: str) -> None:
    result = run(standin, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert standin.seen == []


def test_a_refusal_for_good_is_one_sentence(standin: StandIn) -> None:
    standin.fail(refusal(404, "unknown_reward", "unknown reward 'nix'"))
    result = run(standin, *SHORT, "-r", "nix")
    assert (result.exit_code, result.stderr) == (1, "tureen: unknown reward 'nix' (request req-7)\n")
