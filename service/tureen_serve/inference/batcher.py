"""Which waiting rows form the next batch. Pure: no clock, no threads, no tensors.

The oldest row of the most urgent band always goes first, so that nothing starves within its band. Rows that share
a prompt go together; the rest of a batch is filled from the oldest waiting prompts, those whose answers are about as
long first, so that little is computed on padding.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from tureen_serve.runtimes.contract import BatchLimits, Row, Weights

Priority = Literal["interactive", "default", "batch"]
BANDS: tuple[Priority, ...] = ("interactive", "default", "batch")
WINDOW = 128
JOBS = 4

Prompt = tuple[int, tuple[int, ...], Weights]
Cluster = dict[Row, None]


class Batch:
    """A batch that is being filled. Where rows are padded, prompts are to the longest of them, and so are answers."""

    def __init__(self, limits: BatchLimits) -> None:
        self.rows: list[Row] = []
        self._limits = limits
        self._prompts = self._prompt = self._answer = self._tokens = 0

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether rows of one prompt stay within the limits; one row alone always does, however long it is."""
        count = len(self.rows) + len(rows)
        tokens = self._padded(rows, count) if self._limits.padded else self._tokens + _unique(rows)
        return count == 1 or (count <= self._limits.batch_rows and tokens <= self._limits.batch_tokens)

    def take(self, rows: Sequence[Row]) -> None:
        """Add rows of one prompt: all of them, or into an empty batch as many as fit."""
        if self.rows and not self.fits(rows):
            return
        count = next((n for n in range(1, len(rows)) if not self.fits(rows[: n + 1])), len(rows))
        self._prompts += bool(rows[0].shared)
        self._prompt = max(self._prompt, rows[0].shared)
        self._answer = max(self._answer, *(count_own_tokens(row) for row in rows[:count]))
        self._tokens += _unique(rows[:count])
        self.rows += rows[:count]

    def _padded(self, rows: Sequence[Row], count: int) -> int:
        prompts = (self._prompts + bool(rows[0].shared)) * max(self._prompt, rows[0].shared)
        return prompts + count * max(self._answer, *(count_own_tokens(row) for row in rows))


class Batcher:
    """Rows that wait, each once."""

    def __init__(self) -> None:
        self._tokens = dict.fromkeys(BANDS, 0)
        self._rows: dict[Priority, dict[Row, None]] = {band: {} for band in BANDS}
        self._clusters: dict[Priority, dict[Prompt, Cluster]] = {band: {} for band in BANDS}

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def tokens(self, least: Priority = "batch") -> int:
        """How many tokens wait in bands of this urgency or more, nominal: neither padded nor shared."""
        return sum(self._tokens[band] for band in BANDS[: BANDS.index(least) + 1])

    def add(self, row: Row, priority: Priority) -> None:
        """Queue a row; one that waits already moves if this asks for a more urgent band."""
        if any(row in self._rows[band] for band in BANDS[: BANDS.index(priority) + 1]):
            return
        self.drop(row)
        self._rows[priority][row] = None
        self._clusters[priority].setdefault(find_prompt_key(row), {})[row] = None
        self._tokens[priority] += len(row.ids)

    def drop(self, row: Row) -> None:
        """Forget a row, if it waits."""
        band = next((band for band in BANDS if row in self._rows[band]), None)
        if band is None:
            return
        del self._rows[band][row]
        cluster = self._clusters[band][find_prompt_key(row)]
        del cluster[row]
        if not cluster:
            del self._clusters[band][find_prompt_key(row)]
        self._tokens[band] -= len(row.ids)

    def next_batch(self, limits: BatchLimits) -> list[Row]:
        """Take rows out, at least one if any waits.

        A prompt's rows are split only where they alone exceed the limits; then the rest comes with the next batch.
        Where jobs alone wait, a batch holds a quarter of the tokens, since whoever comes now must wait for its end.
        """
        online = self.tokens("default")
        batch = Batch(limits if online else replace(limits, batch_tokens=max(limits.batch_tokens // JOBS, 1)))
        for band in BANDS:
            for cluster in self._candidates(band):
                batch.take(list(cluster))
        for row in batch.rows:
            self.drop(row)
        return batch.rows

    def _candidates(self, band: Priority) -> list[Cluster]:
        """The oldest row's cluster, then those of the window by likeness in length."""
        if not self._rows[band]:
            return []
        oldest = next(iter(self._rows[band]))
        first = self._clusters[band][find_prompt_key(oldest)]
        window = [each for each in islice(self._clusters[band].values(), WINDOW) if each is not first]
        return [
            first,
            *sorted(window, key=lambda cluster: abs(count_own_tokens(next(iter(cluster))) - count_own_tokens(oldest))),
        ]


def find_prompt_key(row: Row) -> Prompt:
    """What a row shares with others: its prompt under its blend. A row that shares nothing is its own."""
    return row.shared, row.ids[: row.shared] or row.ids, row.blend


def count_own_tokens(row: Row) -> int:
    """Tokens that no other row has."""
    return len(row.ids) - row.shared


def _unique(rows: Sequence[Row]) -> int:
    """Tokens of rows of one prompt, the prompt's counted once."""
    return rows[0].shared + sum(count_own_tokens(row) for row in rows)
