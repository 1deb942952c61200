"""The key of an upstream, from the environment or a file. It stands in no setting, log line or error."""

import os
from pathlib import Path

from tureen_serve.runtimes.sources import LoadError
from tureen_serve.settings import UpstreamEntry


class UpstreamKey:
    """The key that an entry names.

    Args:
        where: the field of the settings, for errors.

    Raises:
        LoadError: the variable or the file has no usable key.
    """

    def __init__(self, entry: UpstreamEntry, where: str) -> None:
        self._where, self._file = where, entry.key_file
        self._key: str | None = None
        self._state: tuple[int, int] | None = None
        if entry.key_env is not None:
            self._key = _check_key(os.environ.get(entry.key_env, ""), f"{where}.key_env: {entry.key_env}")
        elif self._file is not None:
            self._read(self._file)

    def build_headers(self) -> dict[str, str]:
        """Build the header with the key; none without a key. A file that has changed is read again.

        Raises:
            LoadError: the file has no usable key any more.
        """
        if self._file is not None:
            self._read(self._file)
        return {} if self._key is None else {"authorization": f"Bearer {self._key}"}

    def hide_key(self, text: str) -> str:
        """Replace the key in a text of the upstream."""
        return text if self._key is None else text.replace(self._key, "[key]")

    def _read(self, file: Path) -> None:
        where = f"{self._where}.key_file: {file}"
        try:
            found = file.stat()
            state = found.st_mtime_ns, found.st_size
            if state != self._state:
                self._key, self._state = _check_key(file.read_text(encoding="utf-8"), where), state
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"{where} cannot be read: {type(error).__name__}") from None


def _check_key(text: str, where: str) -> str:
    key = text.strip()
    if not key:
        raise LoadError(f"{where} has no key")
    if not all("!" <= each <= "~" for each in key):
        raise LoadError(f"{where}: a key is one word of printable ASCII characters")
    return key
