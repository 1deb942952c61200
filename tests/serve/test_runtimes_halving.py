"""Bad items of a batch are found in few runs; the others have the results of the runs that did not fail."""

from collections.abc import Sequence

import pytest

from tureen_serve.runtimes.halving import run_halved


class Summing:
    """Sums numbers, and counts its runs. Negative numbers fail, and 1000 is fatal."""

    def __init__(self) -> None:
        self.runs = self.failed = 0

    def run(self, numbers: Sequence[int]) -> int:
        self.runs += 1
        if 1000 in numbers:
            raise LookupError
        if min(numbers) < 0:
            self.failed += 1
            raise ZeroDivisionError
        return sum(numbers)

    def halved(self, numbers: Sequence[int]) -> dict[tuple[int, ...], int | Exception]:
        found = run_halved(numbers, self.run, lambda error: isinstance(error, LookupError))
        return {tuple(part): result for part, result in found}


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64, 100])
@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_one_bad_item_costs_a_logarithm(size: int, share: float) -> None:
    summing, bad = Summing(), round(share * (size - 1))
    found = summing.halved([-1 if number == bad else number for number in range(size)])
    assert [number for part in found for number in part] == [-1 if each == bad else each for each in range(size)]
    assert isinstance(found.pop((-1,)), ZeroDivisionError)
    assert found == {part: sum(part) for part in found}
    depth = (size - 1).bit_length()
    assert summing.failed <= depth + 1
    assert summing.runs <= 2 * depth + 1


def test_without_a_bad_item_there_is_one_run() -> None:
    summing = Summing()
    assert summing.halved(range(64)) == {tuple(range(64)): sum(range(64))}
    assert summing.runs == 1


def test_if_all_are_bad_each_is_alone() -> None:
    summing = Summing()
    found = summing.halved([-number for number in range(1, 9)])
    assert list(found) == [(-number,) for number in range(1, 9)]
    assert summing.runs == 15


def test_an_error_that_hurts_all_is_raised_at_once() -> None:
    summing = Summing()
    with pytest.raises(LookupError):
        summing.halved([-1, 5, 1000, 7])
    assert summing.runs == 1
