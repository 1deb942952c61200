"""Stores for tests: a clock that is set by hand, and what a batch looks like at each stage of its life."""

from collections.abc import Sequence

from tureen.wire import BatchRequest
from tureen_serve.batches.database import Database
from tureen_serve.batches.leases import Leases
from tureen_serve.batches.records import LineRange, StoredFile, Tally
from tureen_serve.batches.store import Store


class Clock:
    """The time, as a test says it is."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Bench:
    """A store, two workers' leases on it, and the time."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.database = Database(url, self.clock)
        self.store = Store(self.database)
        self.one = Leases(self.database, 60)
        self.other = Leases(self.database, 60)

    def close(self) -> None:
        self.database.close()

    def file(self, key: str = "uploads/a", size: int = 40) -> str:
        """A file of requests."""
        return self.store.add_file(StoredFile(key, size, "0" * 64), "in.jsonl").id

    def request(self, window: str = "24h", **more: object) -> BatchRequest:
        """A request for a batch over a file of its own."""
        fields = {"input_file_id": self.file(), "endpoint": "/v1/score", "completion_window": window, **more}
        return BatchRequest.model_validate(fields)

    def begun(self, pieces: Sequence[LineRange] | None = None, window: str = "24h") -> str:
        """A batch whose input was found valid: two chunks of two lines by default."""
        name = self.store.create_batch(self.request(window)).id
        lease = self.one.take_batch()
        assert lease is not None
        assert lease.batch_id == name
        self.one.begin(lease, [LineRange(1, 2, 0, 20), LineRange(3, 2, 20, 20)] if pieces is None else pieces)
        return name

    def run(self, count: int) -> None:
        """Run so many chunks."""
        for _ in range(count):
            lease = self.one.take_chunk()
            assert lease is not None
            assert lease.chunk is not None
            key = f"batches/{lease.batch_id}/{lease.chunk.number}-{lease.fence}"
            self.one.commit(lease, key, Tally(lease.chunk.piece.lines))
