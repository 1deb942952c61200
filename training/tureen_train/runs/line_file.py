"""A file of JSON Lines that only grows, and survives a kill at any point."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tureen.json_lines import decode_json, encode_line


class LineFile:
    """Rows on disk, each written at once. A half line, which a kill leaves at the end, is dropped when it is opened.

        done = LineFile(folder / "judgements.jsonl")
        done.append({"key": "1f0a", "verdict": "A"})
        done.rows  # what stood there when it was opened

    One process writes a file; its threads may write at the same time.

    Attributes:
        rows: the rows that stood in the file when it was opened.

    Raises:
        ValueError: a whole line is not JSON; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.read_bytes() if path.exists() else b""
        whole = held[: held.rfind(b"\n") + 1]
        if whole != held:
            with path.open("r+b") as stream:
                stream.truncate(len(whole))
        self.rows: list[dict[str, Any]] = [self._read(at, line) for at, line in enumerate(whole.splitlines(), 1)]

    def append(self, *rows: dict[str, Any]) -> None:
        """Write rows at the end, so that they are in the file when this returns.

        Raises:
            ValueError: a number in a row is not finite.
        """
        self.extend(rows)

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """As :meth:`append`, all at once."""
        text = b"".join(map(encode_line, rows))
        with self._lock, self.path.open("ab") as stream:
            stream.write(text)

    def _read(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row: dict[str, Any] = decode_json(line.decode())
        except ValueError as error:
            raise ValueError(f"{self.path}:{number} is damaged: {error}; remove the line, or the file") from error
        return row
