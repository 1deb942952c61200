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
"""Told of a batch each time that it is looked at."""


@dataclass(frozen=True)
class FileCalls:
    """What can be done with files."""

    calls: Calls

    def upload(self, form: Form, deadline: float | None) -> Flow[File]:
        """``POST /v1/files``. A lost answer may leave a file behind that nobody knows; the server lets go of it."""
        return _ask(self.calls, HttpRequest("POST", FILES, form=form), File, deadline)

    def get(self, file_id: str, deadline: float | None) -> Flow[File]:
        """``GET /v1/files/{id}``."""
        return _ask(self.calls, HttpRequest("GET", build_path(FILES, file_id)), File, deadline)

    def list_all(self, purpose: str | None, limit: int | None, deadline: float | None) -> Flow[list[File]]:
        """``GET /v1/files``, all pages of it or as many as hold ``limit``, the newest first."""
        told = {} if purpose is None else {"purpose": purpose}
        return (yield from _pages(self.calls, FILES, FileList, told, limit, deadline))

    def open(self, file_id: str, deadline: float | None) -> Flow[tuple[httpx2.Response, Deadline]]:
        """``GET /v1/files/{id}/content``: its response with the body unread, and until when it may be read."""
        until = Deadline(deadline, self.calls.clock)
        response = yield from self.calls.exchange(HttpRequest("GET", _content(file_id), stream=True), until)
        return response, until

    def save(self, file_id: str, path: Path, deadline: float | None) -> Flow[None]:
        """The same, written to ``path``; what breaks off is begun again."""
        until = Deadline(deadline, self.calls.clock)
        yield from self.calls.exchange(HttpRequest("GET", _content(file_id), into=Download(path, until)), until)

    def delete(self, file_id: str, deadline: float | None) -> Flow[FileDeleted]:
        """``DELETE /v1/files/{id}``."""
        return _ask(self.calls, HttpRequest("DELETE", build_path(FILES, file_id)), FileDeleted, deadline)


@dataclass(frozen=True)
class BatchCalls:
    """What can be done with batches."""

    calls: Calls

    def create(self, options: Mapping[str, Any]) -> Flow[Batch]:
        """``POST /v1/batches``, under a key, so that all tries make one batch."""
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
        """``GET /v1/batches``, all pages of it or as many as hold ``limit``, the newest first."""
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
        """Look at a batch until it has ended, at first after ``poll`` seconds and ever more rarely.

        Args:
            longest: seconds between two looks at most.
            outage: seconds for which a server that answered once may be away.

        Raises:
            DeadlineExceeded: it has not; it goes on nevertheless.
            TureenError: the first look failed, or the server was away for longer.
        """
        until = Deadline(deadline, self.calls.clock)
        batch = yield from self._look(self.calls, batch_id, 0.0, until)
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
                    f"{describe_progress(batch)} after {until.seconds:g} s; it goes on: wait again, or cancel it"
                )
            batch = yield from self._look(patient, batch_id, wait, until)
            pause = min(pause * GROWTH, longest)

    @staticmethod
    def _look(calls: Calls, batch_id: str, wait: float, until: Deadline) -> Flow[Batch]:
        response = yield from calls.exchange(HttpRequest("GET", build_path(BATCHES, batch_id), delay=wait), until)
        return http_replies.parse_response(Batch, response)


def count_finished_lines(batch: Batch) -> int:
    """Lines that were run. A batch that was broken off counts as failed what was not run: then it is the good ones."""
    counts = batch.request_counts
    return counts.completed if batch.status in STOPPED_EARLY else counts.completed + counts.failed


def describe_progress(batch: Batch) -> str:
    """How far a batch is: ``batch_1 is in progress, 3 of 8 lines done``."""
    lines = f"{count_finished_lines(batch)} of {batch.request_counts.total} lines done"
    return f"{batch.id} is {batch.status.replace('_', ' ')}, {lines}"


def build_path(folder: str, name: str) -> str:
    """The path of a file or batch.

    Raises:
        InvalidRequest: the name is empty, which would name all of them.
    """
    if not name:
        raise InvalidRequest("give the id of one of them; it is empty", param="id")
    return f"{folder}/{quote(name, safe='')}"


def _content(file_id: str) -> str:
    return f"{build_path(FILES, file_id)}/content"


def _ask(calls: Calls, send: HttpRequest, kind: type[B], deadline: float | None) -> Flow[B]:
    response = yield from calls.exchange(send, Deadline(deadline, calls.clock))
    return http_replies.parse_response(kind, response)


def _pages(
    calls: Calls, path: str, kind: type[L], told: Mapping[str, str], limit: int | None, deadline: float | None
) -> Flow[list[Any]]:
    until = Deadline(deadline, calls.clock)
    found: list[Any] = []
    while True:
        left = PAGE if limit is None else min(PAGE, limit - len(found))
        after = {"after": found[-1].id} if found else {}
        query = urlencode({"limit": left, **told, **after})
        page = http_replies.parse_response(
            kind, (yield from calls.exchange(HttpRequest("GET", f"{path}?{query}"), until))
        )
        found += page.data
        if not (page.has_more and page.data) or len(found) == limit:
            return found
