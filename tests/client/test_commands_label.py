"""``tureen label`` against a real server: what it writes, what it says, and that it goes on after a kill."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from client.standin import StandIn, hang_up, keep_silent, refusal, work
from pyarrow.parquet import read_table
from typer.testing import CliRunner, Result
from waiting import block_until

from tureen import Retries, cli
from tureen.commands import outage_notice
from tureen.labelling import asked_runs, parquet

HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also in a background job
PAIR = {"prompt": "Why?", "candidates": ["Because.", "No idea at all."]}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text((json.dumps(PAIR) + "\n") * 2)
    return path


def run(standin: StandIn, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["label", *map(str, arguments), "--url", standin.url])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_writes_a_file_and_sums_up(standin: StandIn, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    result = run(standin, source, target, "--run", "1", "-r", "length", "-p", "length=1", "--truncate")
    assert result.stdout == f"labelled 2 of 2 items into 2 rows: {target}; ties 0\n"
    assert [row["chosen"] for row in lines(target)] == [1, 1]
    asked = standin.seen[0].json
    assert (asked["priority"], asked["rewards"], asked["preferences"]) == ("batch", ["length"], {"length": 1.0})
    assert asked["truncate"] is True


def test_json_goes_alone_to_standard_output(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(PAIR) + '\n{"prompt": 3}\n')
    result = run(standin, source, target, "--format", "ranking", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "read": 2,
        "labelled": 1,
        "failed": 1,
        "rows": 1,
        "ties": 0,
        "dropped": {},
        "prompt_tokens": 23,
        "fingerprint": standin.fingerprint,
        "preferences": {},
        "target": str(target),
        "errors": str(tmp_path / "out.errors.jsonl"),
    }
    assert result.stderr == ""
    assert lines(target) == [{"id": "in.jsonl:1", "ranking": [1, 0]}]
    assert [row["line"] for row in lines(tmp_path / "out.errors.jsonl")] == [2]


def test_it_names_the_bad_line(standin: StandIn, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(PAIR) + '\n\n{"prompt": 3, "candidates": ["a", "b"]}\n')
    result = run(standin, source, tmp_path / "out.jsonl", "--fail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(
        f"tureen: {source}, line 3: prompt: should be a valid string, or should be a valid list\n"
    )


@pytest.mark.parametrize("form", ["full", "ranking", "trl", "trl-implicit", "trl-text", "text-score", "rewardbench"])
def test_every_form_can_be_asked_for(standin: StandIn, source: Path, tmp_path: Path, form: str) -> None:
    assert run(standin, source, tmp_path / "out.jsonl", "--format", form, "--ties", "mark").exit_code == 0
    (first, _) = lines(tmp_path / "out.jsonl")
    assert (first["id"], first["tie"]) == ("in.jsonl:1", False)
    if form == "trl-text":
        assert first["chosen"] == " No idea at all."


def test_what_is_left_out_is_said(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": "Why?", "candidates": ["a", "bb", "cc", "ddddddddd"]}))
    options = ("--format", "trl", "--pairs", "all", "--ties", "drop", "--tie-margin", "0.5", "--min-margin", "2")
    result = run(standin, source, target, *options)
    said = (
        f"labelled 1 of 1 items into 3 rows: {target}; ties 1; left out 1 (tie); left out 2 (margin below the least)\n"
    )
    assert result.stdout == said
    assert [row["id"] for row in lines(target)] == ["in.jsonl:1/3-1", "in.jsonl:1/3-2", "in.jsonl:1/3-0"]
    assert standin.seen[0].json["matrix"] is True


def test_packed_and_tabular_targets(standin: StandIn, source: Path, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet"):
        assert run(standin, source, tmp_path / name, "--format", "trl").exit_code == 0
    rows = lines(tmp_path / "out.jsonl")
    packed = gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes())
    assert packed == (tmp_path / "out.jsonl").read_bytes()
    assert read_table(tmp_path / "out.parquet").to_pylist() == rows


def test_parquet_without_pyarrow_is_refused_before_anything_is_asked(
    standin: StandIn, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    result = run(standin, source, tmp_path / "out.parquet")
    assert result.exit_code == 2
    assert "Parquet needs pyarrow: pip install pyarrow" in result.stderr
    assert standin.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-margin", "-1"], "min_margin is -1"),
        (["--min-probability", "2"], "min_probability is 2"),
        (["--pairs", "all"], "full has no pairs"),
        (["--format", "csv"], "is not one of"),
        (["-p", "academy"], "'academy' is not a weight: write it as"),
    ],
)
def test_wrong_usage(standin: StandIn, source: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = run(standin, source, tmp_path / "out.jsonl", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert standin.seen == []


@pytest.mark.parametrize(("target", "status"), [("no/out.jsonl", 1), ("out.txt", 2), ("out", 2)])
def test_a_target_that_cannot_be_written_is_a_sentence(
    standin: StandIn, source: Path, tmp_path: Path, target: str, status: int
) -> None:
    result = run(standin, source, tmp_path / target)
    assert result.exit_code == status
    assert ("No such file or directory" if status == 1 else "must be named") in result.stderr


def test_other_work_is_refused_until_it_is_told_to_restart(standin: StandIn, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    standin.fail(work, *[refusal(422, "invalid_value")])
    assert run(standin, source, target, "--run", "1", "--parallel", "1").exit_code == 1
    refused = run(standin, source, target, "--format", "ranking")
    assert refused.exit_code == 1
    assert "recipe differs" in refused.stderr
    assert run(standin, source, target, "--format", "ranking", "--restart").exit_code == 0
    assert [list(row) for row in lines(target)] == [["id", "ranking"]] * 2


def test_after_a_kill_it_goes_on(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f"{json.dumps({**PAIR, 'id': number})}\n" for number in range(9)))
    standin.fail(work, work, keep_silent)
    options = ["label", str(source), str(target), "--run", "2", "--parallel", "1", "--url", standin.url]
    process = subprocess.Popen(
        [sys.executable, "-c", "from tureen.cli import app; app()", *options], env={**os.environ, "COLUMNS": "80"}
    )
    state = tmp_path / "out.jsonl.run.json"
    block_until(lambda: len(standin.seen) >= 3 or process.poll() is not None)  # the second is kept by then
    assert json.loads(state.read_bytes())["tally"]["read"] == 4
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    asked = len(standin.seen)
    result = run(standin, source, target, "--run", "2")
    assert result.stdout == f"labelled 9 of 9 items into 9 rows: {target}; ties 0\n"
    assert [row["id"] for row in lines(target)] == [str(number) for number in range(9)]
    assert sum(len(seen.json["items"]) for seen in standin.seen[asked:]) == 5


def test_labels_never_replace_their_own_input(standin: StandIn, source: Path) -> None:
    before = source.read_bytes()
    result = run(standin, source, source.parent / "." / source.name)
    assert result.exit_code == 2
    assert "the target is the input file" in result.stderr
    assert (source.read_bytes(), standin.seen) == (before, [])
    result = run(standin, source.parent, source.parent / "out.jsonl")
    assert "the target is in the input folder" in result.stderr


def test_preference_data_is_labelled_and_its_columns_are_told(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("Aufgabe,chosen,rejected,note\nWhy?,yes,no,n\nHow?,so,thus,m\n")
    result = run(standin, source, target, "--map", "Aufgabe=prompt")
    assert result.exit_code == 0, result.output
    assert "column `note`, not understood and not sent: 2" in result.stdout
    assert len(lines(target)) == 2
    assert standin.seen[-1].json["items"][1]["prompt"] == [{"role": "user", "content": "How?"}]
    wrong = run(standin, source, tmp_path / "other.jsonl", "--form", "tldr")
    assert wrong.exit_code == 2
    assert "unknown form 'tldr'" in wrong.stderr


def test_bad_items_go_to_the_error_file_and_the_rest_is_done(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b", "context": "c"}
    rows = [{**PAIR, "id": "a"}, "{", pair, ["Why?", "a", "b"], {**PAIR, "id": "a"}, {**PAIR, "id": "b"}]
    source.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    result = run(standin, source, target)
    errors = tmp_path / "out.errors.jsonl"
    assert result.exit_code == 1
    assert result.stdout == f"labelled 2 of 6 items into 2 rows: {target}; ties 0; failed 4: {errors}\n"
    assert [row["id"] for row in lines(target)] == ["a", "b"]
    told = [(row["line"], row["id"], row["error"]["message"]) for row in lines(errors)]
    assert [each[:2] for each in told] == [(2, "in.jsonl:2"), (3, "in.jsonl:3"), (4, "in.jsonl:4"), (5, "a")]
    for (*_, message), says in zip(
        told, ("not JSON", "`context`", "not a list", "'a' stands on another line too"), strict=True
    ):
        assert says in message
    assert run(standin, source, target).exit_code == 1  # done before, and told as before


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.json"])
def test_an_empty_input_is_said(standin: StandIn, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"[]" if name == "in.json" else b"")
    result = run(standin, tmp_path / name, tmp_path / "out.jsonl")
    assert (result.exit_code, standin.seen) == (1, [])
    assert result.stderr.startswith(f"tureen: {tmp_path / name} holds no items; write one item per line")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that tries again at once, and tells of it."""
    monkeypatch.setattr(outage_notice, "NOTICED", 0.0)
    monkeypatch.setattr("tureen.commands.outage_notice.Retries", partial(Retries, limit=0, first=0.001, most=0.002))


@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_away_is_waited_for_and_told(standin: StandIn, source: Path, tmp_path: Path) -> None:
    standin.fail(*[hang_up] * 5, refusal(503, "model_loading", "loading"))
    result = run(standin, source, tmp_path / "out.jsonl")
    assert (result.exit_code, len(lines(tmp_path / "out.jsonl"))) == (0, 2)
    waits, back = result.stderr.splitlines()
    assert waits.startswith(f"tureen: waiting up to 300 s for the server: the connection to {standin.url} was lost")
    assert back == "tureen: the server is back"


@pytest.mark.usefixtures("hasty")
def test_what_is_done_outlasts_a_server_that_does_not_come_back(standin: StandIn, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    standin.fail(work, *[hang_up] * 999)
    began = time.monotonic()
    result = run(standin, source, target, "--run", "1", "--parallel", "1", "--outage", "0.3")
    assert result.exit_code == 1
    assert 0.3 <= time.monotonic() - began < 10
    *_, error, remedy = result.stderr.splitlines()
    assert error.startswith("tureen: the connection to")
    assert remedy == "tureen: 1 item is done and kept; give the same command again to continue"
    standin.faults.clear()
    asked = len(standin.seen)
    assert run(standin, source, target).exit_code == 0
    assert len(lines(target)) == 2
    assert [len(seen.json["items"]) for seen in standin.seen[asked:]] == [1]


def test_ctrl_c_before_any_answer_says_so(
    standin: StandIn, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    standin.fail(keep_silent)  # or the answer may come before the interrupt is handled
    monkeypatch.setattr(asked_runs, "wait", interrupted)
    result = run(standin, source, tmp_path / "out.jsonl")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "tureen: no item was answered yet; give the same command again to begin anew\n"
    monkeypatch.undo()
    standin.faults.clear()
    assert run(standin, source, tmp_path / "out.jsonl").exit_code == 0


def test_ctrl_c_among_the_first_rows_keeps_them(standin: StandIn, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f"{json.dumps({**PAIR, 'id': number})}\n" for number in range(40)))
    standin.fail(work, keep_silent)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", f"{HEARS_CTRL_C}; from tureen.cli import app; app()"),
            *("label", source, target, "--parallel", "1", "--url", standin.url),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    block_until(lambda: len(standin.seen) >= 2 or process.poll() is not None)  # the first is kept by then
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (
        130,
        "tureen: 8 items are done and kept; give the same command again to continue\n",
    )
    asked = len(standin.seen)
    assert run(standin, source, target).exit_code == 0
    assert [row["id"] for row in lines(target)] == [str(number) for number in range(40)]
    assert sum(len(seen.json["items"]) for seen in standin.seen[asked:]) == 32
