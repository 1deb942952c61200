"""Which rows are late, and that nothing is kept of those that are gone."""

import math

from tureen_serve.inference.row_deadlines import SLACK, RowDeadlines
from tureen_serve.runtimes.contract import Row


def row(number: int) -> Row:
    return Row((number,), (("helpful", 1.0),))


def test_late_rows_are_taken_once_the_earliest_first() -> None:
    found = RowDeadlines()
    for number, ends in enumerate((5.0, 3.0, math.inf, 4.0, 9.0)):
        found.add(row(number), ends)
    found.drop(row(3))
    found.drop(row(77))
    assert found.find_latest() == 9.0
    assert found.take_late(5.0) == [row(1)]
    assert found.take_late(6.0) == [row(0)]
    assert found.take_late(1e9) == [row(4)]
    assert found.find_latest() == math.inf
    assert len(found) == 1  # the one without a deadline


def test_a_row_is_of_use_to_the_caller_who_waits_longest() -> None:
    found = RowDeadlines()
    for ends in (5.0, 8.0, 3.0):
        found.add(row(1), ends)
    assert found.take_late(7.0) == []
    assert found.take_late(9.0) == [row(1)]
    found.add(row(2), 5.0)
    found.add(row(2), math.inf)
    assert found.take_late(1e9) == []


def test_rows_that_are_gone_leave_nothing_behind() -> None:
    found = RowDeadlines()
    for number in range(10_000):
        found.add(row(number), 1e9 + number)
        found.drop(row(number))
    assert len(found) == len(found._rows) == 0
    assert len(found._heap) <= SLACK + 1
    assert len(found._last) <= SLACK + 1
