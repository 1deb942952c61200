"""``tureen batch`` against a real server: what it makes, what it says, and that it goes on where it stopped."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from client.standin import StandIn, free_url, hang_up, refusal, work
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner, Result

from tureen import Client, Retries, TureenError, cli
from tureen.batch_jobs import job
from tureen.commands import batch, outage_notice

TALK = [{"role": "user", "content": "Why?"}]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "OFTEN", 0.001)


class Folder:
    """A folder with an input file, where commands are run."""

    def __init__(self, path: Path, standin: StandIn) -> None:
        self.path, self.standin = path, standin
        self.source, self.target, self.errors = (path / name for name in ("in.jsonl", "out.jsonl", "out.errors.jsonl"))

    def write(self, *rows: Any) -> None:
        self.source.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))

    def batch(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(cli.app, ["batch", *map(str, arguments), "--url", self.standin.url])

    def run(self, *arguments: str | Path) -> Result:
        return self.batch("run", self.source, self.target, *arguments)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


def request(name: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": "/v1/score", "body": {"text": name, **body}}


@pytest.fixture
def folder(tmp_path: Path, standin: StandIn) -> Folder:
    folder = Folder(tmp_path, standin)
    folder.write(request("a"), request("b"), "", request("c"))
    return folder


def test_the_commands_and_their_flags() -> None:
    commands = get_command(batch.app).commands  # type: ignore[attr-defined]
    flags = {
        name: {option for parameter in each.params for option in parameter.opts if option.startswith("--")}
        for name, each in commands.items()
    }
    assert {name: each - {"--url", "--json"} for name, each in flags.items()} == {
        "run": {"--endpoint", "--window", "--error-file", "--restart", "--outage"},
        "submit": {"--endpoint", "--window", "--outage"},
        "status": set(),
        "list": {"--limit"},
        "cancel": set(),
        "results": {"--error-file", "--wait", "--outage"},
    }
    assert all({"--url", "--json"} <= each for each in flags.values())


# --------------------------------------------------------------------------- run


def test_a_file_is_run(folder: Folder) -> None:
    result = folder.run("--window", "90m")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"done 3 of 3 lines: {folder.target}\n"
    assert ids(folder.target) == ["a", "b", "c"]
    assert folder.names == ["in.jsonl", "out.jsonl", "out.jsonl.tureen-batch"]
    [batch] = folder.standin.jobs.batches.values()
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/score", "90m")
    assert folder.standin.jobs.files[batch["input_file_id"]].told["filename"] == "in.jsonl"


def test_failed_lines_are_told_and_written_elsewhere(folder: Folder) -> None:
    folder.write(request("a"), request("b", fail=1), request("c"))
    result = folder.run()
    assert result.exit_code == 1
    assert result.stdout == f"done 2 of 3 lines: {folder.target}; failed 1: {folder.errors}\n"
    assert (ids(folder.target), ids(folder.errors)) == (["a", "c"], ["b"])


def test_json_tells_the_same(folder: Folder) -> None:
    folder.write(request("a"), request("b", fail=1))
    told = json.loads(folder.run("--json", "--error-file", folder.path / "bad.jsonl").stdout)
    counts = {"total": 2, "completed": 1, "failed": 1, "not_run": 0}
    files = {"target": str(folder.target), "errors": str(folder.path / "bad.jsonl")}
    assert told == {"batch": "batch_0", "status": "completed", **counts, **files}
    assert ids(folder.path / "bad.jsonl") == ["b"]
    assert folder.run("--json").exit_code == 1


def test_when_all_lines_fail_the_output_is_empty(folder: Folder) -> None:
    folder.write(request("a", fail=1))
    assert folder.run().exit_code == 1
    assert folder.target.read_bytes() == b""


def test_an_error_file_of_before_goes_where_there_are_no_errors(folder: Folder) -> None:
    folder.errors.write_text("old")
    assert folder.run().exit_code == 0
    assert not folder.errors.exists()


def test_rows_are_welcome_where_the_endpoint_is_given(folder: Folder) -> None:
    folder.write({"messages": TALK}, {"messages": TALK, "id": "x"})
    assert folder.run("--endpoint", "/v1/score").exit_code == 0
    assert ids(folder.target) == ["in.jsonl:1", "x"]
    assert json.loads(folder.target.read_bytes().splitlines()[0])["response"]["body"] == {"items": [{"messages": TALK}]}


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"messages": TALK}], (), "has no `url`: give --endpoint"),
        ([request("a")], ("--window", "soon"), "'soon' is not a number of hours or minutes"),
        ([request("a")], ("--endpoint", "/v1/embeddings"), "is not one of"),
        ([request("a")], ("--error-file", "out.jsonl"), "must be different files"),
    ],
)
def test_wrong_usage_exits_with_2(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, rows: list[Any], options: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(folder.path)
    folder.write(*rows)
    result = folder.run(*options)
    assert (result.exit_code, folder.standin.seen) == (2, [])
    assert says in result.stderr
    assert folder.names == ["in.jsonl"]


@pytest.mark.parametrize("where", [("in.jsonl", "in.jsonl"), ("none.jsonl", "out.jsonl")])
def test_files_that_cannot_be_meant(folder: Folder, where: tuple[str, str]) -> None:
    assert folder.batch("run", *(folder.path / name for name in where)).exit_code == 2


def test_a_line_that_cannot_be_used_is_told_before_anything_is_sent(folder: Folder) -> None:
    folder.write(request("a"), "", "{")
    result = folder.run()
    assert (result.exit_code, result.stdout, folder.standin.seen) == (1, "", [])
    assert result.stderr.startswith(f"tureen: {folder.source}, line 3: this is not JSON")
    folder.write(request("a"))  # and so the corrected file is no other work
    assert folder.run().exit_code == 0


def test_what_the_server_refuses_is_told_by_the_files_lines(folder: Folder) -> None:
    bad = {**request("b"), "body": {}}
    folder.write(request("a"), "", *[{**bad, "custom_id": str(number)} for number in range(12)])
    result = folder.run()
    assert result.exit_code == 1
    first, *told, last = result.stderr.splitlines()
    assert first == "tureen: batch_0 ran no lines because its input file is invalid:"
    assert told[0] == f"  {folder.source}, line 3: body: is empty"
    assert (len(told), last) == (10, "  and 2 more")
    assert folder.names == ["in.jsonl"]
    folder.write(request("a"))  # and so the corrected file is no other work
    assert folder.run().exit_code == 0


def test_a_batch_that_was_cancelled_elsewhere_gives_what_it_has(folder: Folder) -> None:
    folder.standin.fail(work, work, work, work, cancelled(folder.standin))
    result = folder.run()
    assert result.exit_code == 1
    assert result.stdout == f"batch_0 was cancelled; done 2 of 3 lines: {folder.target}; not run 1: {folder.errors}\n"
    assert ids(folder.errors) == ["c"]
    told = "tureen: the same command will report this again; use --restart to run the file again\n"
    assert result.stderr == told
    again = folder.run("--json")
    assert (again.exit_code, again.stderr) == (1, told)
    assert [json.loads(again.stdout)[name] for name in ("completed", "failed", "not_run")] == [2, 0, 1]
    assert folder.batch("status", "batch_0").stdout == (
        "batch_0 is cancelled, 2 of 3 lines done, 1 failed or not run\n"
    )
    assert "1 or not run" in folder.batch("list").stdout
    assert folder.run("--restart").exit_code == 0


def test_what_failed_before_a_batch_was_cancelled_is_told_apart(folder: Folder) -> None:
    folder.write(request("a", fail=1), request("b"), request("c"))
    folder.standin.fail(work, work, work, work, cancelled(folder.standin))
    assert "done 1 of 3 lines" in (told := folder.run().stdout)
    assert f"; failed 1, not run 1: {folder.errors}" in told


@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_empty_input_is_said(folder: Folder, command: str) -> None:
    folder.source.write_text("\n")
    result = folder.batch(command, folder.source, *([folder.target] if command == "run" else []))
    assert (result.exit_code, result.stderr) == (
        1,
        f"tureen: {folder.source} holds no lines: write one request on each line\n",
    )


def test_a_server_that_is_away_for_long_is_waited_for_and_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_notice, "NOTICED", 0.0)
    monkeypatch.setattr("tureen.commands.outage_notice.Retries", partial(Retries, limit=0, first=0.001))
    folder.standin.fail(hang_up, hang_up, work, hang_up, work, hang_up, hang_up)
    result = folder.run()
    assert (result.exit_code, ids(folder.target)) == (0, ["a", "b", "c"])
    first, *_ = told = result.stderr.splitlines()
    assert first.startswith("tureen: waiting up to 300 s for the server: the connection to")
    assert told[1:] in (["tureen: the server is back"], ["tureen: the server is back", first, told[1]])
    folder.standin.fail(hang_up)
    gone = folder.run("--restart", "--outage", "0")
    assert (gone.exit_code, gone.stderr.startswith("tureen: the connection to")) == (1, True)


def cancelled(standin: StandIn) -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        standin.jobs.batches["batch_0"]["status"] = "cancelling"
        await work(scope, receive, send)

    return answer


def test_nobody_there_is_one_sentence(folder: Folder) -> None:
    result = CliRunner().invoke(cli.app, ["batch", "status", "batch_0", "--url", free_url()])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "tureen-serve --starter" in result.stderr


def test_an_output_that_cannot_be_written_is_told_before_anything_is_sent(folder: Folder) -> None:
    result = folder.batch("run", folder.source, folder.path / "no" / "out.jsonl")
    assert (result.exit_code, folder.standin.seen) == (1, [])
    assert "No such file or directory" in result.stderr


# --------------------------------------------------------------------------- going on


def interrupt(folder: Folder, *faults: Any) -> None:
    """Run until the server fails for good."""
    folder.standin.fail(*faults, *[refusal(422, "told", "enough")] * 9)
    assert folder.run().exit_code == 1
    folder.standin.faults.clear()
    folder.standin.seen.clear()


@pytest.mark.parametrize("steps", range(7))
def test_an_interrupted_run_goes_on_with_the_same_batch(folder: Folder, steps: int) -> None:
    folder.write(*[request(name) for name in "abcd"], request("e", fail=1))
    interrupt(folder, *[work] * steps)
    before = dict(folder.standin.jobs.batches)
    assert len(before) == (steps > 1)
    assert not folder.target.exists()
    result = folder.run()
    assert result.stdout == f"done 4 of 5 lines: {folder.target}; failed 1: {folder.errors}\n"
    assert (ids(folder.target), ids(folder.errors)) == (list("abcd"), ["e"])
    assert len(folder.standin.jobs.batches) == 1
    uploads = [seen for seen in folder.standin.seen if seen.path == "/v1/files"]
    assert len(uploads) == (steps == 0)


def test_a_batch_that_was_made_and_not_noted_is_found_by_its_key(folder: Folder) -> None:
    async def lose(scope: Any, receive: Any, send: Any) -> None:
        async def nobody(message: Any) -> None:
            pass

        await work(scope, receive, nobody)
        await refusal(422, "told")(scope, receive, send)

    interrupt(folder, work, lose)
    assert folder.run().exit_code == 0
    assert list(folder.standin.jobs.batches) == ["batch_0"]


def test_finished_work_asks_nobody_and_says_the_same(folder: Folder) -> None:
    folder.write(request("a"), request("b", fail=1))
    first = folder.run()
    folder.standin.seen.clear()
    again = folder.run()
    assert (again.exit_code, again.stdout) == (first.exit_code, first.stdout) == (1, first.stdout)
    assert folder.standin.seen == []


@pytest.mark.parametrize("lost", ["out.jsonl", "out.errors.jsonl"])
def test_results_that_were_removed_are_fetched_again(folder: Folder, lost: str) -> None:
    folder.write(request("a"), request("b", fail=1))
    folder.run()
    (folder.path / lost).unlink()
    assert folder.run().exit_code == 1
    assert (ids(folder.target), ids(folder.errors)) == (["a"], ["b"])
    assert len(folder.standin.jobs.batches) == 1


def begun(folder: Folder) -> None:
    interrupt(folder, *[work] * 3)


def finished(folder: Folder) -> None:
    assert folder.run().exit_code == 0
    folder.standin.seen.clear()


@pytest.mark.parametrize("before", [begun, finished])
@pytest.mark.parametrize("change", ["input", "window", "endpoint"])
def test_other_work_is_told_and_not_mixed(folder: Folder, before: Any, change: str) -> None:
    before(folder)
    if change == "input":
        folder.write(request("z"))
    if change == "endpoint":
        note = folder.path / "out.jsonl.tureen-batch"
        note.write_text(note.read_text().replace("/v1/score", "/v1/completions"))
    result = folder.run(*(("--window", "1h") if change == "window" else ()))
    assert (result.exit_code, folder.standin.seen) == (1, [])
    assert f"{folder.target} was started with another {change}" in result.stderr
    assert "--restart" in result.stderr
    assert folder.target.exists() is (before is finished)


def test_restart_cancels_and_forgets(folder: Folder) -> None:
    begun(folder)
    folder.write(request("z"))
    result = folder.run("--restart")
    assert (result.exit_code, ids(folder.target)) == (0, ["z"])
    assert [batch["status"] for batch in folder.standin.jobs.batches.values()] == ["cancelling", "completed"]


@pytest.mark.parametrize("loss", ["ended", "gone", "damaged", "none", "finished"])
def test_restart_forgets_what_cannot_be_cancelled(folder: Folder, loss: str) -> None:
    (finished if loss == "finished" else begun)(folder)
    if loss == "ended":
        folder.standin.jobs.batches["batch_0"]["status"] = "completed"
    if loss == "gone":
        folder.standin.jobs.batches.clear()
    if loss == "damaged":
        (folder.path / "out.jsonl.tureen-batch").write_text("{")
    if loss == "none":
        (folder.path / "out.jsonl.tureen-batch").unlink()
    assert folder.run("--restart").exit_code == 0
    assert ids(folder.target) == ["a", "b", "c"]
    assert len(folder.standin.jobs.keys) == 2


def test_a_damaged_note_is_told(folder: Folder) -> None:
    (folder.path / "out.jsonl.tureen-batch").write_text('{"work": 3}')
    result = folder.run()
    assert result.exit_code == 1
    assert (
        "out.jsonl.tureen-batch is damaged: choose another output file, or start again with --restart" in result.stderr
    )


def test_another_server_is_told_where_it_was_begun(folder: Folder) -> None:
    begun(folder)
    folder.standin.jobs.batches.clear()
    result = folder.run()
    assert result.exit_code == 1
    assert f"no such batch; this run was started at {folder.standin.url}: continue it there" in result.stderr


def test_a_server_without_batches_says_so_itself(folder: Folder) -> None:
    folder.standin.fail(refusal(404, "batches_disabled", "this server takes no batches"))
    assert folder.run().stderr == "tureen: this server takes no batches (request req-7)\n"


def test_ctrl_c_says_how_to_go_on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "save_results", interrupted)
    result = folder.run()
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.startswith(f"tureen: batch_0 still runs at {folder.standin.url}. Give the same command again")
    monkeypatch.undo()
    assert folder.run().exit_code == 0


def test_ctrl_c_before_there_is_a_batch_says_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "read_requests", interrupted)
    assert (folder.run().exit_code, folder.run().stderr) == (130, "")


# --------------------------------------------------------------------------- without waiting


def test_submit_status_list_cancel_results(folder: Folder) -> None:
    first = folder.batch("submit", folder.source)
    assert (first.exit_code, first.stdout) == (0, "batch_0\n")
    second = json.loads(folder.batch("submit", folder.source, "--json", "--window", "1h").stdout)
    assert (second["id"], second["completion_window"]) == ("batch_1", "1h")
    assert folder.batch("status", "batch_0").stdout == "batch_0 is in progress, 0 of 3 lines done, 0 failed\n"
    assert json.loads(folder.batch("status", "batch_0", "--json").stdout)["request_counts"]["completed"] == 2
    told = folder.batch("results", "batch_1", folder.target)
    assert (told.exit_code, folder.target.exists()) == (1, False)
    assert told.stderr == "tureen: batch_1 is in progress, 0 of 3 lines done: use --wait to wait for it\n"
    assert folder.batch("cancel", "batch_1").stdout.startswith("batch_1 is cancelling, 0 of 3 lines done")
    assert json.loads(folder.batch("cancel", "batch_1", "--json").stdout)["status"] == "cancelling"
    rows = folder.batch("list").stdout
    assert rows.index("batch_1") < rows.index("batch_0")
    assert "2 of 3" in rows
    told = folder.batch("results", "batch_0", folder.target, "--wait")
    assert (told.exit_code, ids(folder.target)) == (0, ["a", "b", "c"])
    listed = json.loads(folder.batch("list", "--json", "--limit", "1").stdout)
    assert (listed["object"], [each["id"] for each in listed["data"]]) == ("list", ["batch_1"])
    assert folder.names == ["in.jsonl", "out.jsonl"]


def test_results_with_failures_exit_with_1(folder: Folder) -> None:
    folder.write(request("a"), request("b", fail=1))
    folder.batch("submit", folder.source)
    result = folder.batch("results", "batch_0", folder.target, "--wait", "--json", "--error-file", folder.path / "bad")
    assert (result.exit_code, json.loads(result.stdout)["failed"]) == (1, 1)
    assert (ids(folder.target), ids(folder.path / "bad")) == (["a"], ["b"])
    assert folder.batch("results", "batch_0", folder.target).exit_code == 1


def test_results_of_what_could_not_be_run(folder: Folder) -> None:
    folder.write({**request("b"), "body": {}})
    folder.batch("submit", folder.source)
    result = folder.batch("results", "batch_0", folder.target, "--wait")
    assert (result.exit_code, result.stderr.splitlines()[1:]) == (1, ["  line 1: body: is empty"])


def test_what_there_is_none_of(folder: Folder) -> None:
    for words in (("status",), ("cancel",), ("results", folder.target)):
        result = folder.batch(words[0], "batch_9", *words[1:])
        assert (result.exit_code, result.stderr) == (1, "tureen: there is no such batch\n")


# --------------------------------------------------------------------------- what is shown


def test_a_terminal_sees_the_lines_go_by(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(stderr=True, force_terminal=True, _environ={"TERM": "xterm", "COLUMNS": "200"})
    monkeypatch.setattr("tureen.commands.batch.err", terminal)
    folder.standin.jobs.pace = 1
    folder.write(*[request(name) for name in "abc"], request("d", fail=1))
    result = folder.run()
    assert result.exit_code == 1
    assert "batch_0 completed" in result.stderr
    assert "4/4" in result.stderr
    assert "1 failed" in result.stderr
    assert "lines/s" in result.stderr


def test_a_job_can_be_run_from_python(folder: Folder) -> None:
    what = job.Job(folder.source, folder.target, folder.errors, "/v1/score", "24h")
    with Client(folder.standin.url, poll=0.001) as client:
        assert job.run_job(client, what, lambda batch: None).status == "completed"
        folder.standin.jobs.batches.clear()
        assert job.run_job(client, what, lambda batch: None).status == "completed"
        folder.target.unlink()
        with pytest.raises(TureenError, match="this run was started at"):
            job.run_job(client, what, lambda batch: None)


def test_a_server_that_breaks_off_in_between_is_asked_again(folder: Folder) -> None:
    folder.standin.fail(hang_up, work, hang_up, work, hang_up, work)
    assert folder.run().exit_code == 0
    assert len(folder.standin.jobs.batches) == 1
