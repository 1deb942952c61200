"""Runs that are asked at once: none is lost when the asking ends early, and they fit the speed of the models."""

import concurrent.futures
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.conftest import HASTY
from client.standin import StandIn
from client.test_labelling_labelling_run import Job, item, plan
from waiting import block_until

from tureen import Client, PreferencesReply, Unavailable
from tureen.commands.label import make_labeller
from tureen.labelling import asked_runs, labelling_run
from tureen.labelling.asked_runs import RunSize
from tureen.labelling.journal import Journal, count_kept


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with Client(standin.url, retries=HASTY) as client:
        yield client


class Asking:
    """Asks the stand-in, and holds the answers to some runs back, by their number from 0."""

    def __init__(self, job: Job, *held: int) -> None:
        self.job, self.held = job, held
        self.go_on = threading.Event()
        self.answered: set[int] = set()
        self._ask = make_labeller(job.client, plan())

    def __call__(self, asked: list[Any], fingerprint: Any) -> PreferencesReply:
        number = int(asked[0]["prompt"]) // 2
        if number in self.held:
            self.go_on.wait(60)
        reply = self._ask(asked, fingerprint)
        self.answered.add(number)
        return reply

    def label(self) -> Any:
        how = plan(ahead=3)
        return labelling_run.label_items(self, self.job.source, self.job.target, how, self.job.seen.append)


def make_job(folder: Path, client: Client, count: int = 12) -> Job:
    return Job(folder, client, *[{**item(2), "prompt": str(number)} for number in range(count)])


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), Unavailable("gone")])
def test_answers_behind_one_that_has_not_come_are_kept(
    client: Client, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    asking = Asking(make_job(tmp_path, client), 1)
    waited = concurrent.futures.wait

    def interrupt(futures: Any) -> Any:
        if asking.job.seen[-1:] == [2]:  # the first run is written
            block_until(lambda: asking.answered >= {0, 2, 3})
            raise fault
        return waited(futures)

    monkeypatch.setattr(asked_runs, "wait", interrupt)
    with pytest.raises(type(fault)):
        asking.label()
    asking.go_on.set()
    monkeypatch.undo()
    kept = count_kept(asking.job.target)
    assert kept == 6  # the first run, and the two behind the second
    block_until(lambda: asking.answered >= {1})
    asked = len(standin.seen)
    tally = Asking(asking.job).label()
    assert [row["id"] for row in asking.job.rows] == [f"in.jsonl:{number}" for number in range(1, 13)]
    assert (tally.read, sum(len(seen.json["items"]) for seen in standin.seen[asked:])) == (12, 12 - kept)
    assert count_kept(asking.job.target) == 12


def test_an_interrupt_while_rows_are_written_ends_it_behind_them(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    committed = Journal.commit

    def interrupted(journal: Journal, *what: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        committed(journal, *what)

    monkeypatch.setattr(Journal, "commit", interrupted)
    asking = Asking(make_job(tmp_path, client))
    with pytest.raises(KeyboardInterrupt):
        asking.label()
    assert count_kept(asking.job.target) >= 2
    monkeypatch.undo()
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert asking.label().read == 12


def test_runs_grow_while_replies_are_quick_and_shrink_where_they_are_slow() -> None:
    size = RunSize(64)
    sizes = [size.items]
    for seconds in (0.1, 0.1, 3.0, 0.1, 0.1, 9.0, 9.0):
        size.note(seconds)
        sizes.append(size.items)
    assert sizes == [8, 16, 32, 32, 64, 64, 32, 16]
    assert RunSize(2).items == 2
