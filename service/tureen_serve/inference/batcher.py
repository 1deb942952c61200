"""Choose which waiting rows form the next batch. Pure: no clock, no threads, no tensors.

Rows wait in a band for each priority. A more urgent band always goes first. Inside a band tenants have equal shares of
the tokens: the next prompt is one of the tenant that has had the fewest since it began to wait (start-time fair
queuing). The oldest row of a tenant goes first, so no row waits for ever within its band. Rows that share a prompt go
together. The rest of a batch is filled from the oldest prompts. Among these, answers of similar length go first, so
that little is computed on padding.
"""

from collections.abc import Iterator, Sequence
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


class TenantQueue:
    """The rows of one tenant in one band, in the order in which they came, and by their prompts."""

    def __init__(self) -> None:
        self.rows: dict[Row, None] = {}
        self._clusters: dict[Prompt, Cluster] = {}

    def add(self, row: Row) -> None:
        """Add a row that is not in it."""
        self.rows[row] = None
        self._clusters.setdefault(find_prompt_key(row), {})[row] = None

    def drop(self, row: Row) -> None:
        """Remove a row that is in it."""
        del self.rows[row]
        cluster = self._clusters[find_prompt_key(row)]
        del cluster[row]
        if not cluster:
            del self._clusters[find_prompt_key(row)]

    def order(self, padded: bool) -> Iterator[Cluster]:
        """Yield the rows of the oldest prompt, then those of the window; if they are padded, similar lengths first."""
        oldest = next(iter(self.rows))
        first = self._clusters[find_prompt_key(oldest)]
        yield first
        window = [each for each in islice(self._clusters.values(), WINDOW) if each is not first]
        own = count_own_tokens(oldest)
        if padded:
            window.sort(key=lambda cluster: abs(count_own_tokens(next(iter(cluster))) - own))
        yield from window


class Batcher:
    """The queue of rows. Each row is in it once."""

    def __init__(self) -> None:
        self._tokens = dict.fromkeys(BANDS, 0)
        self._tenants: dict[Priority, dict[Row, str]] = {band: {} for band in BANDS}
        self._queues: dict[Priority, dict[str, TenantQueue]] = {band: {} for band in BANDS}
        self._served: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def tokens(self, least: Priority = "batch") -> int:
        """Count the tokens of all rows in the band ``least`` and more urgent ones, without padding or sharing."""
        return sum(self._tokens[band] for band in BANDS[: BANDS.index(least) + 1])

    def add(self, row: Row, priority: Priority, tenant: str = "") -> None:
        """Queue a row. A row that is in the queue already moves if ``priority`` is more urgent."""
        if any(row in self._tenants[band] for band in BANDS[: BANDS.index(priority) + 1]):
            return
        self.drop(row)
        self._welcome(tenant)
        self._tenants[priority][row] = tenant
        self._queues[priority].setdefault(tenant, TenantQueue()).add(row)
        self._tokens[priority] += len(row.ids)

    def drop(self, row: Row) -> None:
        """Remove a row from the queue, if it is in it."""
        band = next((band for band in BANDS if row in self._tenants[band]), None)
        if band is None:
            return
        tenant = self._tenants[band].pop(row)
        queue = self._queues[band][tenant]
        queue.drop(row)
        if not queue.rows:
            del self._queues[band][tenant]
        self._tokens[band] -= len(row.ids)

    def next_batch(self, limits: BatchLimits) -> list[Row]:
        """Take the rows of the next batch out of the queue: at least one, if the queue is not empty.

        Rows of one prompt are split only if they alone exceed the limits. If only jobs wait, the batch gets a fourth of
        the tokens, because a request that arrives now must wait until the batch ends.
        """
        online = self.tokens("default")
        batch = Batch(limits if online else replace(limits, batch_tokens=max(limits.batch_tokens // JOB_SHARE, 1)))
        for band in BANDS:
            for cluster in self._take_turns(band, limits.padded):
                batch.take(list(cluster))
        for row in batch.rows:
            self._served[next(self._tenants[band][row] for band in BANDS if row in self._tenants[band])] += len(row.ids)
            self.drop(row)
        return batch.rows

    def _take_turns(self, band: Priority, padded: bool) -> Iterator[Cluster]:
        """Yield the rows of prompts: the next is one of the tenant that has had the fewest tokens, these included."""
        turns = {tenant: queue.order(padded) for tenant, queue in self._queues[band].items()}
        had = {tenant: self._served[tenant] for tenant in turns}
        while turns:
            tenant = min(turns, key=had.__getitem__)
            cluster = next(turns[tenant], None)
            if cluster is None:
                del turns[tenant]
            else:
                had[tenant] += _unique(list(cluster))
                yield cluster

    def _welcome(self, tenant: str) -> None:
        """Begin to count what a tenant gets, if none of its rows wait: idle time is no credit."""
        if any(tenant in queues for queues in self._queues.values()):
            return
        waiting = {each for queues in self._queues.values() for each in queues}
        least = min((self._served[each] for each in waiting), default=0)
        known = self._served.get(tenant, 0) if waiting else 0
        self._served = {each: self._served[each] for each in waiting} | {tenant: max(known, least)}


def find_prompt_key(row: Row) -> Prompt:
    """Return the key that rows of one prompt and one blend share. A row without a shared prompt has its own key."""
    return row.shared, row.ids[: row.shared] or row.ids, row.blend


def count_own_tokens(row: Row) -> int:
    """Count the tokens after the shared prompt."""
    return len(row.ids) - row.shared


def _unique(rows: Sequence[Row]) -> int:
    """Count the tokens of rows of one prompt, with the prompt counted once."""
    return rows[0].shared + sum(count_own_tokens(row) for row in rows)
