"""Many calls of one server: what is lost, what ends the run, and that an outage costs its patience once."""

import threading
from collections.abc import Iterator

import pytest
from client.standin import free_url

from tureen import Client
from tureen.errors import InvalidRequest, NotFound, ServerFault, TureenError, Unavailable
from tureen.retry import Retries
from tureen_train.runs import server_calls
from tureen_train.runs.server_calls import ServerRefusal, call_server


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_calls, "PATIENT", Retries(limit=2, first=0.01, most=0.01))


def lose(task: int, error: TureenError) -> str:
    return f"lost {task}: {type(error).__name__}"


def called(errors: dict[int, TureenError], threads: int = 1, **keys: type[TureenError]) -> Iterator[str]:
    """Call ten times; the tasks in ``errors`` fail."""

    def ask(client: Client, deadline: float, task: int) -> str:
        if task in errors:
            raise errors[task]
        return f"did {task}"

    return call_server("http://localhost:1", 5.0, threads, ask, lose, range(10), **keys)


def test_a_call_that_fails_loses_its_task_alone() -> None:
    found = list(called({3: ServerFault("broken"), 5: InvalidRequest("no")}, forgiven=InvalidRequest, threads=4))
    wanted = [f"did {task}" for task in range(10)]
    wanted[3], wanted[5] = "lost 3: ServerFault", "lost 5: InvalidRequest"
    assert found == wanted


def test_an_outage_loses_the_tasks_that_follow_without_a_call() -> None:
    found = list(called({2: Unavailable("away")}))
    assert found == ["did 0", "did 1", *[f"lost {task}: Unavailable" for task in range(2, 10)]]


def test_a_server_that_is_not_there_is_asked_a_few_times_and_not_by_every_task() -> None:
    tries: list[int] = []
    lock = threading.Lock()

    def ask(client: Client, deadline: float, task: int) -> str:
        with lock:
            tries.append(task)
        return str(client.models())

    found = list(call_server(free_url(), 5.0, 2, ask, lose, range(50)))
    assert {each.partition(": ")[2] for each in found} == {"ConnectionFailed"}
    assert len(tries) <= 4


def test_what_every_call_would_be_told_ends_the_run() -> None:
    with pytest.raises(ServerRefusal, match="http://localhost:1: no such reward"):
        list(called({0: NotFound("no such reward")}))
    with pytest.raises(ServerRefusal, match="too long"):
        list(called({4: InvalidRequest("too long")}, threads=4))
