"""A batch in this process: a file in, files out, and a later run that goes on where one was broken off."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serve.counting import CountingEngine
from serve.requests import line, names, scores
from waiting import wait_until

from tureen.errors import InvalidRequest, Unavailable, Unprocessable
from tureen.wire import Batch, RequestCounts
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches.local_batch import LocalBatch, run_local_batch

OPTIONS = BatchSettings(chunk_lines=3)


@pytest.fixture
def job(tmp_path: Path) -> LocalBatch:
    found = LocalBatch(tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl", "/v1/score")
    found.source.write_bytes(scores(8))
    return found


def work(job: LocalBatch, engine: CountingEngine | None = None, seen: list[RequestCounts] | None = None) -> Batch:
    watched: list[RequestCounts] = [] if seen is None else seen
    return asyncio.run(run_local_batch(job, BATCH_ENDPOINTS, engine or CountingEngine(), OPTIONS, watched.append))


def break_off(job: LocalBatch, calls: int) -> None:
    """End a run once the engine has been called so often."""

    async def half() -> None:
        engine = CountingEngine()
        running = asyncio.create_task(run_local_batch(job, BATCH_ENDPOINTS, engine, OPTIONS, lambda _: None))
        await wait_until(lambda: len(engine.calls) >= calls or running.done())
        engine.gate.clear()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(half())


def test_a_file_in_is_two_files_out(job: LocalBatch) -> None:
    ended = work(job)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 7, 1)
    assert names(job.target.read_bytes()) == ["n1", "n2", "n3", "n4", "n6", "n7", "n8"]
    assert names(job.errors.read_bytes()) == ["n5"]
    assert {path.name for path in job.target.parent.iterdir()} == {"in.jsonl", "out.jsonl", "out.errors.jsonl"}


def test_without_errors_there_is_no_file_of_them(job: LocalBatch) -> None:
    job.source.write_bytes(scores(2))
    work(job)
    assert not job.errors.exists()


def test_where_all_failed_the_target_is_there_and_empty(job: LocalBatch) -> None:
    job.source.write_bytes(scores(2, bad=1))
    work(job)
    assert job.target.read_bytes() == b""
    assert names(job.errors.read_bytes()) == ["n1", "n2"]


def test_it_tells_how_far_it_is(job: LocalBatch) -> None:
    seen: list[RequestCounts] = []
    work(job, seen=seen)
    assert (seen[-1].total, seen[-1].completed, seen[-1].failed) == (8, 7, 1)


def test_a_later_run_goes_on_and_does_nothing_twice(job: LocalBatch) -> None:
    break_off(job, calls=2)
    assert job.state.is_dir()
    assert not job.target.exists()
    engine = CountingEngine()
    work(job, engine)
    assert len(engine.calls) < 3
    assert names(job.target.read_bytes()) == ["n1", "n2", "n3", "n4", "n6", "n7", "n8"]


def test_a_dead_runtime_ends_it_and_a_later_run_goes_on(job: LocalBatch) -> None:
    engine = CountingEngine()
    engine.pause_call = 2

    def watch(counts: RequestCounts) -> None:
        if engine.running:
            engine.dead = "tiny is stuck"

    with pytest.raises(Unavailable, match="tiny is stuck"):
        asyncio.run(run_local_batch(job, BATCH_ENDPOINTS, engine, OPTIONS, watch))
    assert job.state.is_dir()
    assert engine.running == 0
    later = CountingEngine()
    assert work(job, later).status == "completed"
    assert len(later.calls) < 3


def test_it_goes_on_only_with_the_same_input(job: LocalBatch) -> None:
    break_off(job, calls=1)
    job.source.write_bytes(scores(9))
    with pytest.raises(InvalidRequest, match="another input"):
        work(job)
    job.source.write_bytes(scores(8))
    assert work(job).status == "completed"


def test_what_is_there_is_not_overwritten(job: LocalBatch) -> None:
    job.target.write_text("precious")
    with pytest.raises(InvalidRequest, match="exists already"):
        work(job)
    assert job.target.read_text() == "precious"
    assert not job.state.exists()


def test_an_input_that_is_not_valid_leaves_nothing(job: LocalBatch) -> None:
    job.source.write_bytes(scores(2) + b"{}\n")
    with pytest.raises(Unprocessable, match="line 3: must be a request"):
        work(job)
    assert list(job.source.parent.iterdir()) == [job.source]


def test_a_line_that_the_route_refuses_is_in_the_error_file_and_the_others_run(job: LocalBatch) -> None:
    job.source.write_bytes(scores(2) + line("n3", {}))
    ended = work(job)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 2, 1)
    assert len(job.target.read_bytes().splitlines()) == 2
    assert [json.loads(each)["custom_id"] for each in job.errors.read_bytes().splitlines()] == ["n3"]


def test_rows_become_requests(job: LocalBatch) -> None:
    rows = [{"prompt": "the wind", "candidates": [f"leaves {number}"], "id": number} for number in range(7)]
    job.source.write_text("\n\n".join(map(json.dumps, rows)))
    break_off(job, calls=2)
    engine = CountingEngine()
    assert work(job, engine).request_counts.completed == 7
    assert len(engine.calls) < 3
    assert names(job.target.read_bytes()) == [str(number) for number in range(7)]


def test_restart_forgets_what_was_begun_and_replaces_what_was_made(job: LocalBatch) -> None:
    break_off(job, calls=1)
    job.source.write_bytes(scores(2))
    job.target.write_text("of before")
    job.errors.write_text("of before")
    assert work(replace(job, restart=True)).request_counts.total == 2
    assert names(job.target.read_bytes()) == ["n1", "n2"]
    assert not job.errors.exists()


def test_texts_are_written_too(job: LocalBatch) -> None:
    body: Any = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    job.source.write_bytes(b"".join(line(f"n{n}", body, "/v1/chat/completions") for n in range(4)))
    assert work(replace(job, endpoint="/v1/chat/completions")).request_counts.completed == 4
    assert names(job.target.read_bytes()) == [f"n{n}" for n in range(4)]
