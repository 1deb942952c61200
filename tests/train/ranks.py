"""``tureen-train run`` by one or several processes that start quickly, as a launcher would start them.

They are forked from a process that has imported the libraries. No launcher ends the others when one of them fails.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from train.launching import free_port

FORKS = multiprocessing.get_context("forkserver")  # what takes seconds to import is imported once
FORKS.set_forkserver_preload(
    ["tureen_train.__main__", "tureen_train.policies.run", "tureen_train.policies.on_trl", "tureen_train.rewards.run"]
)
LONGEST = 600  # seconds, of a run


def run_rank(recipe: str, flags: tuple[str, ...], log: str, rank: int, count: int, port: int) -> None:
    """The whole life of one process; a single one has no launcher."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    if count > 1:
        os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    scripts = str(Path(sys.executable).parent)  # where DeepSpeed finds ninja
    os.environ.update(OMP_NUM_THREADS="1", PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}")
    from tureen_train.__main__ import app

    app(["run", recipe, *flags])


def die_when_trained(recipe: str, log: str) -> None:
    """The whole life of a process that a power cut ends after its last step, before what it learnt is saved."""
    from tureen_train.policies.trained import TrainerPolicy

    with patch.object(TrainerPolicy, "save", lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
        run_rank(recipe, (), log, 0, 1, 0)


class Ranks:
    """The processes of a run. They write into one log, beside the recipe."""

    def __init__(self, recipe: Path, count: int, *flags: str) -> None:
        self.log = recipe.with_suffix(".log")
        self.log.unlink(missing_ok=True)
        port = free_port()
        self._processes = [
            FORKS.Process(target=run_rank, args=(str(recipe), flags, str(self.log), rank, count, port), daemon=True)
            for rank in range(count)
        ]
        for process in self._processes:
            process.start()

    @property
    def said(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-6000:] if self.log.exists() else ""

    def end(self) -> list[int | None]:
        """Wait for the end of all. Returns their statuses; None for one that hangs, which is killed."""
        until = time.monotonic() + LONGEST
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
        statuses = [process.exitcode for process in self._processes]
        self.kill()
        return statuses

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """End all as a power cut does, once a state is reached.

        Raises:
            AssertionError: one ended before.
        """
        until = time.monotonic() + LONGEST
        while not reached():
            assert time.monotonic() < until, self.said
            assert all(process.is_alive() for process in self._processes), self.said
            time.sleep(0.005)
        self.kill()
        assert {process.exitcode for process in self._processes} == {-signal.SIGKILL}, self.said

    def kill(self) -> None:
        """End all that live."""
        for process in self._processes:
            process.kill()
            process.join(60)


def run_ranks(recipe: Path, count: int, *flags: str) -> Ranks:
    """Run a recipe to its end, which must be a good one."""
    ranks = Ranks(recipe, count, *flags)
    assert ranks.end() == [0] * count, ranks.said
    return ranks
