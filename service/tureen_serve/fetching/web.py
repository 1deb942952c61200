"""Sources behind web servers: an artifact whose manifest names its files, or a tar archive."""

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from tureen_core.manifest_file import LARGEST, MANIFEST
from tureen_serve.fetching.digests import digest_bytes, read_file_digests
from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.http_files import LOOPBACK, HttpFiles
from tureen_serve.fetching.remote_files import RemoteFile


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
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._url, self._query = entry.source.partition("?")[0], parts.query
        self._digest = entry.digest.removeprefix("sha256:")
        self._archive = self._url.rpartition("/")[2] if entry.is_archive else None
        self._shown = entry.shown
        self._files = HttpFiles(entry.shown, "check the URL and the token")

    def close(self) -> None:
        """Close the connections."""
        self._files.close()

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
        return self._files.read(self._name_url(name), self._headers, start)

    def _name_url(self, name: str) -> str:
        path = self._url if self._archive is not None else f"{self._url.rstrip('/')}/{quote(name)}"
        return f"{path}?{self._query}" if self._query else path
