"""What two processes of a crew do in tests. It stands in a module of its own, since they import it by name."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from train.launching import free_port
from train.ranks import FORKS

from tureen_train.policies.rollouts.crew import Crew


def fail(why: str) -> str:
    raise OSError(why)


def share(crew: Crew) -> object:
    rank = crew.rank
    return crew.share(f"of {rank}"), crew.gather(lambda: f"by {rank}"), crew.lead(lambda: f"led by {rank}")


def fail_in_the_lead(crew: Crew) -> object:
    return crew.lead(lambda: fail("no disk"))


def fail_beside(crew: Crew) -> object:
    return crew.gather(lambda: fail("no memory") if crew.rank else "fine")


def run_member(work: Callable[[Crew], object], rank: int, port: int, told: str) -> None:
    """The whole life of one of two processes."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    try:
        found = str(work(Crew()))
    except Exception:
        found = traceback.format_exc()
    Path(told).write_text(found)


def work_by_two(work: Callable[[Crew], object], folder: Path) -> list[str]:
    """What each of two processes tells in the end."""
    port, paths = free_port(), [folder / f"{rank}.txt" for rank in range(2)]
    members = [
        FORKS.Process(target=run_member, args=(work, rank, port, str(path)), daemon=True)
        for rank, path in enumerate(paths)
    ]
    for each in members:
        each.start()
    for each in members:
        each.join(200)
        each.kill()
    return [path.read_text().strip() for path in paths]
