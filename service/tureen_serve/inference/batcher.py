"""Choose which waiting rows form the next batch. Pure: no clock, no threads, no tensors.

Rows wait in a band for each priority. The oldest row of the most urgent band always goes first, so no row waits for
ever within its band. Rows that share a prompt go together. The rest of a batch is filled from the oldest prompts in
the queue. Among these, answers of similar length go first, so that little is computed on padding.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from tureen_serve.runtimes.contract import BatchLimits, Row, Weights

Priority = Literal["interactive", "default", "batch"]
BANDS: tuple[Priority, ...] = ("interactive", "default", "batch")
WINDOW = 128  # prompts among which a batch is filled
JOB_SHARE = 4  # a batch of jobs alone has one fourth of the tokens

Prompt = tuple[int, tuple[int, ...], Weights]
Cluster = dict[Row, None]


class Batch:
    """A batch that is being filled. If rows are padded, prompts are padded to the longest prompt, answers likewise."""

    def __init__(self, limits: BatchLimits) -> None:
        self.rows: list[Row] = []
        self._limits = limits
        self._prompts = self._prompt = self._answer = self._tokens = 0

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether the batch stays within its limits with these rows of one prompt. A single row always fits."""
        count = len(self.rows) + len(rows)
        tokens = self._padded(rows, count) if self._limits.padded else self._tokens + _unique(rows)
        return count == 1 or (count <= self._limits.batch_rows and tokens <= self._limits.batch_tokens)

    def take(self, rows: Sequence[Row]) -> None:
        """Add rows of one prompt: all of them or none. An empty batch takes as many as fit."""
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
    """The queue of rows. Each row is in it once."""

    def __init__(self) -> None:
        self._tokens = dict.fromkeys(BANDS, 0)
        self._rows: dict[Priority, dict[Row, None]] = {band: {} for band in BANDS}
        self._clusters: dict[Priority, dict[Prompt, Cluster]] = {band: {} for band in BANDS}

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def tokens(self, least: Priority = "batch") -> int:
        """Count the tokens of all rows in the band ``least`` and more urgent ones, without padding or sharing."""
        return sum(self._tokens[band] for band in BANDS[: BANDS.index(least) + 1])

    def add(self, row: Row, priority: Priority) -> None:
        """Queue a row. A row that is in the queue already moves if ``priority`` is more urgent."""
        if any(row in self._rows[band] for band in BANDS[: BANDS.index(priority) + 1]):
            return
        self.drop(row)
        self._rows[priority][row] = None
        self._clusters[priority].setdefault(find_prompt_key(row), {})[row] = None
        self._tokens[priority] += len(row.ids)

    def drop(self, row: Row) -> None:
        """Remove a row from the queue, if it is in it."""
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
        """Take the rows of the next batch out of the queue: at least one, if the queue is not empty.

        Rows of one prompt are split only if they alone exceed the limits. If only jobs wait, the batch gets a fourth of
        the tokens, because a request that arrives now must wait until the batch ends.
        """
        online = self.tokens("default")
        batch = Batch(limits if online else replace(limits, batch_tokens=max(limits.batch_tokens // JOB_SHARE, 1)))
        for band in BANDS:
            for cluster in self._candidates(band):
                batch.take(list(cluster))
        for row in batch.rows:
            self.drop(row)
        return batch.rows

    def _candidates(self, band: Priority) -> list[Cluster]:
        """List the rows of the oldest prompt, then those of the window, sorted by how similar their lengths are."""
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
    """Return the key that rows of one prompt and one blend share. A row without a shared prompt has its own key."""
    return row.shared, row.ids[: row.shared] or row.ids, row.blend


def count_own_tokens(row: Row) -> int:
    """Count the tokens after the shared prompt."""
    return len(row.ids) - row.shared


def _unique(rows: Sequence[Row]) -> int:
    """Count the tokens of rows of one prompt, with the prompt counted once."""
    return rows[0].shared + sum(count_own_tokens(row) for row in rows)
