"""A policy family whose texts another server writes, by OpenAI's routes. One request is one text, and is streamed."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.metadata import version

import httpx2

from tureen.errors import BadGateway
from tureen.http_requests import encode_json
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.runtimes.on_upstream.reply_events import ReplyEvents
from tureen_serve.runtimes.on_upstream.reply_faults import (
    make_timeout,
    make_transport_fault,
    read_reply_fault,
    read_streamed_fault,
)
from tureen_serve.runtimes.on_upstream.request_bodies import build_body, check_sampling, find_path
from tureen_serve.runtimes.on_upstream.upstream_key import UpstreamKey
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.runtimes.upstream_contract import TROUBLE, WORKING, Outcome, UpstreamError, UpstreamJob
from tureen_serve.settings import UpstreamEntry

LOG = logging.getLogger(__name__)
LONGEST_FAULT = 2**16  # bytes of an error's body that are read
STREAM = "text/event-stream"


class UpstreamPolicy:
    """Satisfies :class:`tureen_serve.runtimes.upstream_contract.Upstream`. It is used on one event loop.

    Args:
        name: of the family.
    """

    failure: None = None
    dead = False
    memory_failures = 0

    def __init__(self, name: str, entry: UpstreamEntry, key: UpstreamKey) -> None:
        self.concurrency, self.retries = entry.concurrency, entry.retries
        self.description = f"the model {entry.model} of {entry.base_url}"
        self.trouble: str | None = None
        self.outcomes: Counter[Outcome] = Counter()
        self._name, self._entry, self._key = name, entry, key
        self._http: httpx2.AsyncClient | None = None

    def check(self, job: UpstreamJob) -> None:
        """Raise ``Unprocessable`` if a job has a sampling field that is not sent on."""
        check_sampling(job.sampling, self._entry, self._name)

    async def stream(self, job: UpstreamJob) -> AsyncGenerator[TextDelta]:
        """Ask for one text, once. Closing the iterator closes the connection, so that the upstream can stop.

        Raises:
            UpstreamError: there was no whole and readable text.
        """
        events = ReplyEvents(self._name, self._entry.model, job.sampling)
        try:
            async with aclosing(self._ask(job, events)) as deltas:
                async for delta in deltas:
                    yield delta
            last = events.finish()
        except UpstreamError as error:
            self._note(error.outcome, error.error.message)
            raise
        self._note("answered")
        yield last

    async def end(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    def close(self) -> None:
        """Do nothing: an upstream that was never asked has no connections."""

    def probe(self) -> None:
        """Ask for the upstream's models, once, at the start. What is wrong is logged, and no more: it may come up."""
        entry = self._entry
        try:
            headers = self._key.build_headers()
            reply = httpx2.get(f"{entry.base_url}/models", headers=headers, timeout=entry.connect_seconds)
        except httpx2.RequestError as error:
            self._note("unreachable", f"{entry.base_url} cannot be reached ({type(error).__name__})")
            return
        if reply.status_code in (401, 403):
            self._note("denied", f"{entry.base_url} denies access (it says {reply.status_code}); mend its key")
        elif reply.status_code == 404:
            LOG.warning("%s: %s/models is not there; does base_url end with /v1?", self._name, entry.base_url)

    async def _ask(self, job: UpstreamJob, events: ReplyEvents) -> AsyncGenerator[TextDelta]:
        url = f"{self._entry.base_url}{find_path(job)}"
        content = encode_json(build_body(job, self._entry))
        try:
            async with self._open_client().stream("POST", url, content=content, headers=self._headers()) as response:
                await self._check_reply(response)
                async with aclosing(self._read_events(response)) as lines:
                    async for data in lines:
                        failed = read_streamed_fault(data, self._name, events.begun)
                        if failed is not None:
                            raise failed
                        for delta in events.read(data):
                            yield delta
        except httpx2.RequestError as error:
            if not events.whole:  # else only the end mark is missing
                raise make_transport_fault(error, self._name, events.begun) from error

    async def _read_events(self, response: httpx2.Response) -> AsyncGenerator[str]:
        """Yield the data of each event. Comments that only keep the connection open do not count as progress."""
        source: AsyncIterator[httpx2.ServerSentEvent] = aiter(httpx2.EventSource(response))
        while True:
            try:
                async with asyncio.timeout(self._entry.idle_seconds):
                    event = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                message = f"the upstream of {self._name} sent nothing for {self._entry.idle_seconds:g} s"
                raise make_timeout(message) from None
            if event.data:
                yield event.data

    async def _check_reply(self, response: httpx2.Response) -> None:
        """Check that a stream of events comes.

        Raises:
            UpstreamError: an error comes, or something else.
        """
        if response.status_code != 200:
            body = self._key.hide_key(await _read_beginning(response))
            LOG.info("the upstream of %s says %s", self._name, response.status_code)
            raise read_reply_fault(response, body, self._name)
        kind = response.headers.get("content-type", "none").partition(";")[0].strip().lower()
        if kind != STREAM:
            message = f"the upstream of {self._name} sent {kind[:100]!r} and no stream of events"
            raise UpstreamError("bad_reply", BadGateway(message, code="upstream_bad_reply"))

    def _headers(self) -> dict[str, str]:
        try:
            key = self._key.build_headers()
        except LoadError as error:
            LOG.warning("%s", error)
            message = f"the key of the upstream of {self._name} cannot be read; its operator must mend it"
            raise UpstreamError("denied", BadGateway(message, code="upstream_denied")) from None
        agent = {"user-agent": f"tureen/{version('tureen')}", "accept": STREAM}
        return {**agent, "content-type": "application/json", **key}

    def _open_client(self) -> httpx2.AsyncClient:
        """Return the client, which is made on the event loop that uses it. Redirects are not followed, with a key."""
        if self._http is None:
            entry = self._entry
            self._http = httpx2.AsyncClient(
                verify=entry.base_url.startswith("https://"),
                timeout=httpx2.Timeout(entry.idle_seconds, connect=entry.connect_seconds, pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=entry.concurrency),
            )
        return self._http

    def _note(self, outcome: Outcome, message: str = "") -> None:
        """Count how a request ended, and log when the upstream begins to fail and when it works again."""
        self.outcomes[outcome] += 1
        if outcome in TROUBLE:
            if self.trouble is None:
                LOG.warning("the upstream of %s is failing: %s", self._name, message)
            self.trouble = message
        elif self.trouble is not None and outcome in WORKING:
            LOG.info("the upstream of %s works again", self._name)
            self.trouble = None


async def _read_beginning(response: httpx2.Response) -> str:
    parts, size = [], 0
    async with aclosing(response.aiter_bytes()) as body:
        async for part in body:
            parts.append(part)
            size += len(part)
            if size > LONGEST_FAULT:
                break
    return b"".join(parts)[:LONGEST_FAULT].decode(errors="replace")
