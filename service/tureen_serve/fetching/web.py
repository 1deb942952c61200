"""Sources behind web servers: an artifact whose manifest names its files, or a tar archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import httpx2

from tureen_core.manifest_file import LARGEST, MANIFEST
from tureen_serve.fetching.digests import digest_bytes, read_file_digests
from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.remote_files import RemoteFile

SECONDS = 60.0  # for a connection, and for each part of an answer
PART_BYTES = 2**20
BUSY = {408, 425, 429, 500, 502, 503, 504}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class WebFolder:
    """A folder or an archive behind a web server.

    Raises:
        FetchError: there is no digest to check what comes, or a token would be sent without TLS.
    """

    def __init__(self, entry: FetchEntry) -> None:
        parts = urlsplit(entry.source)
        if entry.digest is None:
            kind = "the archive" if entry.is_archive else f"its {MANIFEST}"
            raise FetchError(f"{entry.shown} needs the digest of {kind} (sha256sum), as --digest sha256:…")
        token = entry.read_token()
        if token is not None and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise FetchError(f"{entry.shown}: a token is only sent over https")
        self._headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._url, self._query = entry.source.partition("?")[0], parts.query
        self._digest = entry.digest.removeprefix("sha256:")
        self._archive = self._url.rpartition("/")[2] if entry.is_archive else None
        self._shown = entry.shown
        self._client = httpx2.Client(timeout=SECONDS, follow_redirects=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def list_files(self) -> dict[str, RemoteFile]:
        """List the archive, or the files that the manifest names. See :class:`RemoteFolder`."""
        if self._archive is not None:
            return {self._archive: RemoteFile(None, self._digest, self._digest)}
        content = b""
        for part in self.read(MANIFEST, 0):
            content += part
            if len(content) > LARGEST:
                raise FetchError(f"{self._shown}: {MANIFEST} has more than {LARGEST} bytes")
        found = digest_bytes(content)
        if found != self._digest:
            raise FetchError(f"{self._shown}: {MANIFEST} has the digest sha256:{found}, not the one that is wanted")
        files = {MANIFEST: found} | read_file_digests(content, self._shown)
        return {name: RemoteFile(None, digest, digest) for name, digest in files.items()}

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from a position. See :class:`RemoteFolder`."""
        headers = self._headers | ({"range": f"bytes={start}-"} if start else {})
        with self._ask(self._name_url(name), headers) as reply:
            if reply.status_code == 416:  # the file is whole already
                return
            skip = start if reply.status_code == 200 else 0  # this server sends whole files only
            for part in reply.iter_raw(PART_BYTES):
                left = part[skip:]
                skip = max(0, skip - len(part))
                if left:
                    yield left

    def _name_url(self, name: str) -> str:
        path = self._url if self._archive is not None else f"{self._url.rstrip('/')}/{quote(name)}"
        return f"{path}?{self._query}" if self._query else path

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
            raise FetchError(f"{self._shown}: the server answers {status} for {place}; check the URL and the token")
        if status == 206 and wanted and not headers.get("content-range", "").startswith(wanted.replace("=", " ")):
            raise FetchError(f"{self._shown}: the server sent another range than the one that was asked for")
        if headers.get("content-encoding", "identity") != "identity":
            raise FetchError(f"{self._shown}: the server sends files compressed; switch that off for this path")
