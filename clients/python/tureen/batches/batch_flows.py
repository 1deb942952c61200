"""The calls on files and batches, as generators like those of :mod:`tureen.calls.request_flows`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx2
from pydantic import BaseModel

from tureen import http_replies, http_requests
from tureen.calls.request_flows import Calls, Flow
from tureen.errors import DeadlineExceeded, InvalidRequest
from tureen.http_requests import Download, Form, HttpRequest
from tureen.retry import Deadline
from tureen.wire import Batch, BatchList, BatchRequest, BatchStatus, File, FileDeleted, FileList

B = TypeVar("B", bound=BaseModel)
L = TypeVar("L", FileList, BatchList)

FILES = "/v1/files"
BATCHES = "/v1/batches"
ENDED: frozenset[BatchStatus] = frozenset({"completed", "failed", "expired", "cancelled"})
STOPPED_EARLY: frozenset[BatchStatus] = frozenset({"expired", "cancelled"})
PAGE = 100
GROWTH = 1.5
OUTAGE = 300.0

OnProgress = Callable[[Batch], object]
"""Called with the batch after each poll."""


@dataclass(frozen=True)
class FileCalls:
    """The calls on files."""

    calls: Calls

    def upload(self, form: Form, deadline: float | None) -> Flow[File]:
        """``POST /v1/files``. If the reply is lost, the upload is repeated; the server deletes the first file later."""
        return _ask(self.calls, HttpRequest("POST", FILES, form=form), File, deadline)

    def get(self, file_id: str, deadline: float | None) -> Flow[File]:
        """``GET /v1/files/{id}``."""
        return _ask(self.calls, HttpRequest("GET", build_path(FILES, file_id)), File, deadline)

    def list_all(self, purpose: str | None, limit: int | None, deadline: float | None) -> Flow[list[File]]:
        """``GET /v1/files``: all files, or the newest ``limit`` of them, from as many pages as needed."""
        filters = {} if purpose is None else {"purpose": purpose}
        return (yield from _pages(self.calls, FILES, FileList, filters, limit, deadline))

    def open(self, file_id: str, deadline: float | None) -> Flow[tuple[httpx2.Response, Deadline]]:
        """``GET /v1/files/{id}/content``. Return the response with its body unread, and the deadline for reading it."""
        until = Deadline(deadline, self.calls.clock)
        response = yield from self.calls.exchange(HttpRequest("GET", _content(file_id), stream=True), until)
        return response, until

    def save(self, file_id: str, path: Path, deadline: float | None) -> Flow[None]:
        """``GET /v1/files/{id}/content``, written to ``path``. A download that is cut off starts again."""
        until = Deadline(deadline, self.calls.clock)
        yield from self.calls.exchange(HttpRequest("GET", _content(file_id), into=Download(path, until)), until)

    def delete(self, file_id: str, deadline: float | None) -> Flow[FileDeleted]:
        """``DELETE /v1/files/{id}``."""
        return _ask(self.calls, HttpRequest("DELETE", build_path(FILES, file_id)), FileDeleted, deadline)


@dataclass(frozen=True)
class BatchCalls:
    """The calls on batches."""

    calls: Calls

    def create(self, options: Mapping[str, Any]) -> Flow[Batch]:
        """``POST /v1/batches`` with an idempotency key, so that retries create only one batch."""
        fields = {name: value for name, value in options.items() if value is not None}
        deadline, key = fields.pop("deadline", None), fields.pop("idempotency_key", None)
        body = http_requests.build_body(BatchRequest, fields)
        return (
            yield from _ask(self.calls, HttpRequest("POST", BATCHES, body, key=key or str(uuid4())), Batch, deadline)
        )

    def get(self, batch_id: str, deadline: float | None) -> Flow[Batch]:
        """``GET /v1/batches/{id}``."""
        return _ask(self.calls, HttpRequest("GET", build_path(BATCHES, batch_id)), Batch, deadline)

    def list_all(self, limit: int | None, deadline: float | None) -> Flow[list[Batch]]:
        """``GET /v1/batches``: all batches, or the newest ``limit`` of them, from as many pages as needed."""
        return (yield from _pages(self.calls, BATCHES, BatchList, {}, limit, deadline))

    def cancel(self, batch_id: str, deadline: float | None) -> Flow[Batch]:
        """``POST /v1/batches/{id}/cancel``."""
        return _ask(self.calls, HttpRequest("POST", f"{build_path(BATCHES, batch_id)}/cancel"), Batch, deadline)

    def wait(
        self,
        batch_id: str,
        on_progress: OnProgress | None,
        longest: float,
        deadline: float | None,
        outage: float = OUTAGE,
    ) -> Flow[Batch]:
        """Poll a batch until it has ended. The first pause is ``poll`` seconds; later pauses are longer.

        Args:
            longest: the longest pause between two polls, in seconds.
            outage: the longest time for which the server may be unreachable after its first answer, in seconds.

        Raises:
            DeadlineExceeded: the batch has not ended. It continues on the server.
            TureenError: the first poll failed, or the server was unreachable for longer than ``outage``.
        """
        until = Deadline(deadline, self.calls.clock)
        batch = yield from self._poll(self.calls, batch_id, 0.0, until)
        patient = replace(self.calls, retries=replace(self.calls.retries, outage=outage))
        pause = self.calls.poll
        while True:
            if on_progress is not None:
                on_progress(batch)
            if batch.status in ENDED:
                return batch
            wait = min(pause, longest) * (1 - self.calls.dice() / 4)
            if until.left() < wait:
                raise DeadlineExceeded(
                    f"{describe_progress(batch)} after {until.seconds:g} s; it continues: wait again, or cancel it"
                )
            batch = yield from self._poll(patient, batch_id, wait, until)
            pause = min(pause * GROWTH, longest)

    @staticmethod
    def _poll(calls: Calls, batch_id: str, wait: float, until: Deadline) -> Flow[Batch]:
        response = yield from calls.exchange(HttpRequest("GET", build_path(BATCHES, batch_id), delay=wait), until)
        return http_replies.parse_response(Batch, response)


def count_finished_lines(batch: Batch) -> int:
    """Return the number of finished lines.

    A cancelled or expired batch counts the lines that were not run as failed, so only its completed lines are counted.
    """
    counts = batch.request_counts
    return counts.completed if batch.status in STOPPED_EARLY else counts.completed + counts.failed


def describe_progress(batch: Batch) -> str:
    """Describe the progress of a batch, as ``batch_1 is in progress, 3 of 8 lines done``."""
    lines = f"{count_finished_lines(batch)} of {batch.request_counts.total} lines done"
    return f"{batch.id} is {batch.status.replace('_', ' ')}, {lines}"


def build_path(folder: str, name: str) -> str:
    """Build the path of a file or batch from its id.

    Raises:
        InvalidRequest: the id is empty; the path would be that of the list.
    """
    if not name:
        raise InvalidRequest(
            "id: the id of the file or batch is empty; give the id that the server returned", param="id"
        )
    return f"{folder}/{quote(name, safe='')}"


def _content(file_id: str) -> str:
    return f"{build_path(FILES, file_id)}/content"


def _ask(calls: Calls, send: HttpRequest, kind: type[B], deadline: float | None) -> Flow[B]:
    response = yield from calls.exchange(send, Deadline(deadline, calls.clock))
    return http_replies.parse_response(kind, response)


def _pages(
    calls: Calls, path: str, kind: type[L], filters: Mapping[str, str], limit: int | None, deadline: float | None
) -> Flow[list[Any]]:
    until = Deadline(deadline, calls.clock)
    found: list[Any] = []
    while True:
        left = PAGE if limit is None else min(PAGE, limit - len(found))
        after = {"after": found[-1].id} if found else {}
        query = urlencode({"limit": left, **filters, **after})
        page = http_replies.parse_response(
            kind, (yield from calls.exchange(HttpRequest("GET", f"{path}?{query}"), until))
        )
        found += page.data
        if not (page.has_more and page.data) or len(found) == limit:
            return found
