"""A file that grows by commits: whatever moment it is killed at, no row is lost and none stands twice."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table

from tureen.errors import Conflict, InvalidRequest
from tureen.labelling import journal
from tureen.labelling.journal import Journal
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import TargetFiles

WORK = {"source": "in.jsonl sha256:1", "recipe": {"form": "trl"}}
RUNS = [(["a", "b"], []), ([], ["x"]), (["ü"], ["y", "z"])]


class Killed(Exception):
    """Stands for the end of the process."""


def make(target: Path, work: dict[str, Any] = WORK, **options: Any) -> Journal:
    """All runs that are not there yet, committed and finished."""
    with closing(Journal(target, work, **options)) as made:
        if not made.complete:
            for rows, errors in RUNS[made.tally.read :]:
                tally = replace(made.tally, read=made.tally.read + 1, failed=made.tally.failed + len(errors))
                made.commit([{"row": row} for row in rows], [{"error": error} for error in errors], tally)
            made.finish()
    return made


def rows(path: Path, column: str) -> list[Any]:
    if path.suffix == ".parquet":
        return list(read_table(path).column(column).to_pylist())
    content = path.read_bytes()
    return [
        json.loads(line)[column]
        for line in (gzip.decompress(content) if path.suffix == ".gz" else content).split(b"\n")[:-1]
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_what_stands_there_in_the_end(tmp_path: Path, name: str) -> None:
    made = make(tmp_path / name)
    assert rows(tmp_path / name, "row") == ["a", "b", "ü"]
    assert rows(tmp_path / "out.errors.jsonl", "error") == ["x", "y", "z"]
    assert {path.name for path in tmp_path.iterdir()} == {name, "out.errors.jsonl", f"{name}.run.json"}
    assert (made.complete, made.tally) == (True, Tally(read=3, failed=3))


def test_finished_work_is_not_opened_again(tmp_path: Path) -> None:
    make(tmp_path / "out.jsonl")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = Journal(tmp_path / "out.jsonl", WORK)
    assert (again.complete, again.tally.read) == (True, 3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_killed_before_any_call_to_the_system_it_goes_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "undisturbed" / name
    undisturbed.parent.mkdir()
    make(undisturbed)
    for moment in moments(monkeypatch, lambda: make(tmp_path / "counted" / name), tmp_path / "counted"):
        target = tmp_path / str(moment) / name
        target.parent.mkdir()
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                make(target)
        if TargetFiles(target).rows.exists() and TargetFiles(target).state.exists():
            tear(TargetFiles(target))
        make(target)
        for path in undisturbed.parent.iterdir():
            assert (target.parent / path.name).read_bytes() == path.read_bytes(), moment
        assert len(list(target.parent.iterdir())) == 3


def tear(places: TargetFiles) -> None:
    """Half a row behind those that were committed, as a process leaves it that died while it wrote."""
    if json.loads(places.state.read_bytes())["stage"] == "growing":
        with places.rows.open("ab") as torn:
            torn.write(b'{"row": "half a ro')


def moments(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], folder: Path) -> Iterator[int]:
    """A number for each call to the system that ``work`` makes."""
    folder.mkdir()
    with monkeypatch.context() as patch:
        calls = kill_at(patch, -1)
        work()
    assert len(calls) > 10
    yield from range(len(calls))


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> list[str]:
    """End the work before its call number ``moment``; returns the calls so far."""
    calls: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if len(calls) == moment:
                raise Killed(name)
            calls.append(name)
            return real(*args, **options)

        return call

    for name in ("replace", "fsync"):
        patch.setattr(journal.os, name, watched(name, getattr(journal.os, name)))  # type: ignore[attr-defined]
    patch.setattr(Path, "unlink", watched("unlink", Path.unlink))
    return calls


def test_other_work_is_not_mixed_in(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with closing(Journal(target, WORK)) as begun:
        begun.commit([{"row": "a"}], [], Tally(read=1))
    other = {**WORK, "recipe": {"form": "full"}}
    with pytest.raises(Conflict, match=r"out\.jsonl\.part holds rows of other work \(recipe differs\)"):
        Journal(target, other)
    assert rows(TargetFiles(target).rows, "row") == ["a"]
    assert make(target, other, restart=True).tally.read == 3
    assert rows(target, "row") == ["a", "b", "ü"]


def test_restarted_work_is_forgotten_even_by_those_who_come_later(tmp_path: Path) -> None:
    make(tmp_path / "out.jsonl")
    Journal(tmp_path / "out.jsonl", WORK, restart=True).close()
    with closing(Journal(tmp_path / "out.jsonl", WORK)) as again:
        assert (again.complete, again.tally) == (False, Tally())


def test_finished_work_gives_way_to_other_work_only_when_told(tmp_path: Path) -> None:
    target, other = tmp_path / "out.jsonl", {**WORK, "source": "in.jsonl sha256:2"}
    make(target)
    with pytest.raises(Conflict, match=r"out\.jsonl holds rows of other work \(source differs\).*--restart"):
        Journal(target, other)
    with closing(Journal(target, other, restart=True)) as begun:
        assert not begun.complete
    assert rows(target, "row") == ["a", "b", "ü"]
    with closing(Journal(target, other)) as again:
        assert not again.complete


def test_a_file_that_is_none_of_ours_is_not_replaced_unless_told(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("precious")
    with pytest.raises(Conflict, match="is there already; choose another target, or begin anew with --restart"):
        Journal(target, WORK)
    assert target.read_text() == "precious"
    make(target, restart=True)
    assert rows(target, "row") == ["a", "b", "ü"]


def test_a_target_that_was_removed_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    make(target)
    target.unlink()
    make(target)
    assert rows(target, "row") == ["a", "b", "ü"]


def test_without_failures_there_is_no_error_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    make(target)
    made = Journal(target, {}, restart=True)
    made.commit([{"row": 1}], [], Tally(read=1))
    made.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "out.jsonl.run.json"}


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.run.json").write_text("{}")
    with pytest.raises(Conflict, match=r"out\.jsonl\.run\.json is damaged"):
        Journal(tmp_path / "out.jsonl", WORK)
    make(tmp_path / "out.jsonl", restart=True)


def test_a_part_that_was_cut_short_is_named(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with closing(Journal(target, WORK)) as begun:
        begun.commit([{"row": "a"}], [], Tally(read=1))
    TargetFiles(target).rows.write_text("")
    with pytest.raises(Conflict, match="shorter than what was written"):
        Journal(target, WORK)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "out.jsonl", WORK)), pytest.raises(Conflict, match="another process is writing"):
        Journal(tmp_path / "out.jsonl", WORK)
    make(tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", ["out", "out.json", "out.csv", "out.gz"])
def test_names_that_say_no_way_of_writing_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"must be named \.jsonl, \.jsonl\.gz or \.parquet"):
        Journal(tmp_path / name, WORK)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "out.jsonl", WORK)) as made, pytest.raises(ValueError, match="not JSON compliant"):
        made.commit([{"row": float("nan")}], [], Tally())


def test_parquet_joins_columns_of_whole_numbers_and_fractions_and_takes_no_rows(tmp_path: Path) -> None:
    made = Journal(tmp_path / "out.parquet", WORK)
    made.commit([{"row": 1, "more": None}] * 1500 + [{"row": 0.5, "more": {"a": [1]}}], [], Tally(read=1))
    made.finish()
    assert rows(tmp_path / "out.parquet", "row") == [1.0] * 1500 + [0.5]
    assert rows(tmp_path / "out.parquet", "more")[-1] == {"a": [1]}
    empty = Journal(tmp_path / "empty.parquet", WORK)
    empty.finish()
    assert read_table(tmp_path / "empty.parquet").num_rows == 0


def test_the_state_tells_the_parts_bytes_only_while_there_are_parts(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with closing(Journal(target, WORK)) as growing:
        growing.commit([{"row": "a"}], [{"error": "x"}], Tally(read=2, failed=1))
        state = json.loads(growing.places.state.read_bytes())
        sizes = {"rows": growing.places.rows.stat().st_size, "errors": growing.places.errors_part.stat().st_size}
        assert (state["stage"], state["part_bytes"]) == ("growing", sizes)
        growing.finish()
    state = json.loads(growing.places.state.read_bytes())
    assert set(state) == {"version", "stage", "work", "tally"}
    assert (state["stage"], state["tally"]["read"], state["tally"]["failed"]) == ("complete", 2, 1)


def test_work_that_an_earlier_version_began_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with closing(Journal(target, WORK)) as growing:
        growing.commit([{"row": "a"}], [], Tally(read=1))
    state = json.loads(growing.places.state.read_bytes())
    sizes = state.pop("part_bytes")
    growing.places.state.write_text(json.dumps({**state, **sizes}))
    with closing(Journal(target, WORK)) as again:
        again.commit([{"row": "b"}], [], Tally(read=2))
        again.finish()
    assert rows(target, "row") == ["a", "b"]
