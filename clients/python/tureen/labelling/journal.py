"""A file of rows that grows run by run and survives a kill at any point.

While ``out.jsonl`` grows, its rows are in ``out.jsonl.part`` and the errors in ``out.errors.jsonl.part``. The file
``out.jsonl.run.json`` always stands beside it. It describes the work, its progress, and how many bytes of both parts
are committed (``part_bytes``).
A run is committed by replacing this file after the parts are on the disk. When work continues, bytes after the
committed ones are cut off. So no row is lost and no row is written twice. Replies that came before those to earlier
lines are kept in this file too (``replies``).

Rows are JSON Lines until all are there. Then a target named ``.gz`` is packed, and one named ``.parquet`` converted.
"""

import gzip
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from tureen.atomic_files import move_into_place
from tureen.errors import Conflict
from tureen.json_lines import encode_line
from tureen.labelling import parquet
from tureen.labelling.asked_runs import KeptReply
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import TargetFiles, check_target

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

Row = Mapping[str, Any]
VERSION = 1


class Journal:
    """A target file that is being written.

    Args:
        target: where all rows will stand; ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        work: a description of the work, as JSON. Files of another work are never mixed with it.
        restart: discard the results of an earlier run.

    Attributes:
        tally: the counts of the items so far.
        kept: replies to later items.
        complete: whether the target was finished by the same work.

    Raises:
        Conflict: other work stands there, done or half-done, or a file that is none of ours.
        InvalidRequest: the target's name says no way of writing.
        OSError: the files cannot be read or written.
    """

    def __init__(self, target: Path, work: Mapping[str, Any], *, restart: bool = False) -> None:
        check_target(target)
        self.places = TargetFiles(target)
        self._work = json.loads(json.dumps(work))
        state = {} if restart else self._state()
        self.tally = Tally(**state.get("tally", {}))
        self.kept = [KeptReply.load(each) for each in state.get("replies", [])]
        self.complete = state.get("stage") == "complete"
        sizes = state.get("part_bytes", state)  # an earlier version kept them there
        if state.get("stage") == "placing":
            self._place_all()
        with ExitStack() as streams:
            if not self.complete:
                self._rows = streams.enter_context(_reopen(self.places.rows, sizes.get("rows", 0)))
                self._errors = streams.enter_context(_reopen(self.places.errors_part, sizes.get("errors", 0)))
            self._streams = streams.pop_all()
        if restart:
            self._keep("growing")

    def commit(self, rows: Iterable[Row], errors: Iterable[Row], tally: Tally) -> None:
        """Write the rows and errors of a run, all or none."""
        for stream, made in ((self._rows, rows), (self._errors, errors)):
            stream.write(b"".join(encode_line(row) for row in made))
            _sync(stream)
        self.tally = tally
        self.kept = [each for each in self.kept if each.start >= tally.read]
        self._keep("growing")

    def keep_replies(self, replies: Sequence[KeptReply]) -> None:
        """Keep replies to items that follow unanswered ones, for a later call."""
        self.kept = list(replies)
        self._keep("growing")

    def finish(self) -> None:
        """Move the target and the error file to their places, and delete the parts."""
        self._keep("placing")
        self.close()
        self._place_all()

    def close(self) -> None:
        """Close the parts. Committed work can be continued later."""
        self._streams.close()

    def _place_all(self) -> None:
        """Move all files to their places. A killed process may have done some of the steps already."""
        if not self.tally.failed:
            self.places.errors.unlink(missing_ok=True)
        elif self.places.errors_part.exists():
            move_into_place(self.places.errors_part, self.places.errors)
        if self.places.rows.exists():
            _finish(self.places.rows, self.places.target)
        for path in (self.places.rows, self.places.errors_part):
            path.unlink(missing_ok=True)
        self._keep("complete")
        self.complete = True

    def _state(self) -> dict[str, Any]:
        target, state = self.places.target, self._noted()
        if not state:
            if target.exists():
                raise _taken(f"{target} is there already")
            return {}
        if state["stage"] == "complete" and not target.exists():
            return {}
        if state["version"] == VERSION and state["work"] == self._work:
            return state
        differs = next(
            (name for name in self._work if self._work[name] != state["work"].get(name)), "the version of this program"
        )
        holder = target if state["stage"] == "complete" else self.places.rows
        raise _taken(f"{holder} holds rows of other work ({differs} differs)")

    def _noted(self) -> dict[str, Any]:
        """Read the state file beside the target. Empty if there is none."""
        if not self.places.state.exists():
            return {}
        try:
            state = dict(json.loads(self.places.state.read_bytes()))
            return {"version": state["version"], "work": dict(state["work"]), "stage": state["stage"], **state}
        except (ValueError, KeyError, TypeError):
            raise _taken(f"{self.places.state} is damaged") from None

    def _keep(self, stage: str) -> None:
        state = {"version": VERSION, "stage": stage, "work": self._work, "tally": asdict(self.tally)}
        if stage == "growing":
            state["part_bytes"] = {"rows": self._rows.tell(), "errors": self._errors.tell()}
            state |= {"replies": [each.dump() for each in self.kept]} if self.kept else {}
        part = self.places.state.with_name(f"{self.places.state.name}.part")
        with part.open("wb") as stream:
            stream.write(json.dumps(state, indent=1).encode())
            _sync(stream)
        move_into_place(part, self.places.state)


def count_kept(target: Path) -> int:
    """Count the items that are finished, or have a reply that is kept; 0 if nothing was begun."""
    try:
        state = json.loads(TargetFiles(target).state.read_bytes())
        return int(state["tally"]["read"] + sum(each["count"] for each in state.get("replies", [])))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def say_what_is_kept(targets: Iterable[Path]) -> str:
    """Tell after an interruption how many items are kept, and how to go on."""
    count = sum(map(count_kept, targets))
    if not count:
        return "no item was answered yet; give the same command again to begin anew"
    return f"{count} {'items are' if count > 1 else 'item is'} done and kept; give the same command again to continue"


def _taken(found: str) -> Conflict:
    return Conflict(f"{found}; choose another target, or begin anew with --restart", code="other_work")


def _reopen(path: Path, size: int) -> BinaryIO:
    """Open a file for this process only, cut to its first ``size`` bytes, to append to it."""
    stream = path.open("r+b" if path.exists() else "w+b")
    if not _own(stream):
        stream.close()
        raise Conflict(f"another process is writing {path}", code="other_work")
    if stream.seek(0, os.SEEK_END) < size:
        stream.close()
        raise Conflict(f"{path} is shorter than what was written; restart", code="other_work")
    stream.seek(size)
    stream.truncate()
    return stream


def _own(stream: BinaryIO) -> bool:
    """Lock a file until it is closed. Returns whether that succeeded; always true on systems without locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _finish(part: Path, target: Path) -> None:
    if target.suffix == ".jsonl":
        move_into_place(part, target)
        return
    made = target.with_name(f"{target.name}.made")
    if target.suffix == ".parquet":
        parquet.convert_to_parquet(part, made)
    else:
        with (
            part.open("rb") as plain,
            made.open("wb") as into,
            gzip.GzipFile("", "wb", fileobj=into, mtime=0) as packed,
        ):
            shutil.copyfileobj(plain, packed)
    with made.open("rb") as stream:
        os.fsync(stream.fileno())
    move_into_place(made, target)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
