"""What a source offers: files with sizes and states, and their bytes from any position."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source.

    Attributes:
        size: its bytes; None if only the end of the file tells.
        state: a text that changes when the file does, as an ETag.
        sha256: its digest, where the source or a manifest tells it.
        archive: whether it is a tar archive of the whole folder, also if its name does not say so.
    """

    size: int | None
    state: str
    sha256: str | None = None
    archive: bool = False


class RemoteFolder(Protocol):
    """A folder of a source, or the one archive that holds it."""

    def close(self) -> None:
        """Close the connections."""
        ...

    def list_files(self) -> dict[str, RemoteFile]:
        """List the files by their relative names.

        Raises:
            FetchError: the source is no folder, or cannot be read.
            OSError: it cannot be reached.
        """
        ...

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from a position.

        Raises:
            FetchError: it cannot be read, and another try would not help.
            OSError: the connection was cut; another try may help.
        """
        ...
