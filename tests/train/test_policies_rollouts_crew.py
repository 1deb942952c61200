"""Processes that share work: what each has is known to all, and the failure of one ends all."""

from collections.abc import Callable
from pathlib import Path

import pytest
from train.crew_work import fail, fail_beside, fail_in_the_lead, share, work_by_two

from tureen_train.policies.rollouts.crew import Crew, CrewError


@pytest.mark.long
def test_all_know_what_each_has(tmp_path: Path) -> None:
    expected = str(("of 0", ["by 0", "by 1"], "led by 0"))
    assert work_by_two(share, tmp_path) == [expected, expected]


@pytest.mark.long
@pytest.mark.parametrize(
    ("work", "failed", "why"),
    [(fail_in_the_lead, 0, "no disk"), (fail_beside, 1, "no memory")],
    ids=["first", "second"],
)
def test_the_failure_of_one_ends_all(work: Callable[[Crew], object], failed: int, why: str, tmp_path: Path) -> None:
    found = work_by_two(work, tmp_path)
    assert found[failed].splitlines()[-1] == f"OSError: {why}"
    other = f"{CrewError.__module__}.CrewError: process {failed} of the run failed: OSError: {why}"
    assert found[1 - failed].splitlines()[-1] == other


def test_one_process_alone_raises_its_own_errors() -> None:
    crew = Crew()
    assert (crew.writes, crew.gather(lambda: 1), crew.lead(lambda: 2), crew.share(3)) == (True, [1], 2, 3)
    with pytest.raises(OSError, match="no disk"):
        crew.lead(lambda: fail("no disk"))
    with pytest.raises(OSError, match="no memory"):
        crew.gather(lambda: fail("no memory"))
