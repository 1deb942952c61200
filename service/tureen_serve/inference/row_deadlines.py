"""Until when waiting rows are of use to anybody. Pure: no clock, no threads."""

import heapq
import itertools
import math

from tureen_serve.runtimes.contract import Row

SLACK = 64  # entries of rows that are gone, before they are cleared away


class RowDeadlines:
    """The deadlines of waiting rows. A row that several callers wait for has the last of their deadlines."""

    def __init__(self) -> None:
        self._known: dict[Row, tuple[float, int]] = {}
        self._rows: dict[int, Row] = {}
        self._heap: list[tuple[float, int]] = []  # of entries that no row has any more, too
        self._last: list[tuple[float, int]] = []  # the same, negated: the latest first
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, row: Row, ends: float) -> None:
        """Note that a caller waits for a row until ``ends``; infinity for a caller without a deadline."""
        if row in self._known:
            if ends <= self._known[row][0]:
                return
            self.drop(row)
        number = next(self._numbers)
        self._known[row] = ends, number
        if ends < math.inf:
            self._rows[number] = row
            heapq.heappush(self._heap, (ends, number))
            heapq.heappush(self._last, (-ends, number))

    def drop(self, row: Row) -> None:
        """Forget a row, if it is known."""
        _, number = self._known.pop(row, (0.0, -1))
        self._rows.pop(number, None)
        for heap in (self._heap, self._last):
            if len(heap) > 2 * len(self._rows) + SLACK:
                heap[:] = [entry for entry in heap if entry[1] in self._rows]
                heapq.heapify(heap)

    def find_latest(self) -> float:
        """Find the latest deadline; infinity if no row has one."""
        while self._last and self._last[0][1] not in self._rows:
            heapq.heappop(self._last)
        return -self._last[0][0] if self._last else math.inf

    def take_late(self, moment: float) -> list[Row]:
        """Forget the rows that nobody waits for at ``moment``, and return them, the earliest first."""
        late = []
        while self._heap and self._heap[0][0] < moment:
            _, number = heapq.heappop(self._heap)
            if number in self._rows:
                late.append(self._rows[number])
                self.drop(late[-1])
        return late
