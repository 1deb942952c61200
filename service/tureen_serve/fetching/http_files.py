"""Files behind HTTP: their bytes from any position, and what a reply means for the next try."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

from tureen_serve.fetching.entries import FetchError

SECONDS = 60.0  # for a connection, and for each part of an answer
PART_BYTES = 2**20
LOOPBACK = {"127.0.0.1", "::1", "localhost"}  # here secrets may be sent without TLS
BUSY = {408, 425, 429, 500, 502, 503, 504}


class HttpFiles:
    """Reads from one server, and from where it redirects to.

    Args:
        shown: the source's name for errors.
        advice: what to do where the server answers with an error.
        auth: what makes requests known to the server, if it needs that.
    """

    def __init__(self, shown: str, advice: str, auth: httpx2.Auth | None = None) -> None:
        self._shown, self._advice = shown, advice
        self._client = httpx2.Client(timeout=SECONDS, follow_redirects=True, auth=auth)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, url: str, headers: Mapping[str, str], start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from a position.

        Raises:
            FetchError: it cannot be read, and another try would not help.
            OSError: the connection was cut, or the server is busy; another try may help.
        """
        asked = {"accept-encoding": "identity", **headers} | ({"range": f"bytes={start}-"} if start else {})
        with self._ask(url, asked) as reply:
            if reply.status_code == 416:  # the file is whole already
                return
            skip = start if reply.status_code == 200 else 0  # this server sends whole files only
            for part in reply.iter_raw(PART_BYTES):
                left = part[skip:]
                skip = max(0, skip - len(part))
                if left:
                    yield left

    @contextmanager
    def _ask(self, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        try:
            with self._client.stream("GET", url, headers=headers) as reply:
                self._check(reply, headers.get("range"))
                yield reply
        except httpx2.InvalidURL as error:
            raise FetchError(f"{self._shown} is no URL: {error}") from error
        except httpx2.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _check(self, reply: httpx2.Response, wanted: str | None) -> None:
        status, headers = reply.status_code, reply.headers
        if status in BUSY:
            raise OSError(f"the server answers {status}")
        if status != 200 and not (wanted and status in (206, 416)):
            place = urlsplit(str(reply.url)).path
            raise FetchError(f"{self._shown}: the server answers {status} for {place}; {self._advice}")
        if status == 206 and wanted and not headers.get("content-range", "").startswith(wanted.replace("=", " ")):
            raise FetchError(f"{self._shown}: the server sent another range than the one that was asked for")
        if headers.get("content-encoding", "identity") != "identity":
            raise FetchError(f"{self._shown}: the server sends files compressed; switch that off for this path")
