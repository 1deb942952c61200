"""API keys: read them from a file, keep their digests, and check them on every path that is not in ``OPEN``.

A key may do everything. Without a file of keys nothing is checked, and the settings only allow a loopback host.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

from tureen.errors import Unauthorized
from tureen_serve.settings import SettingsError
from tureen_serve.telemetry import App, Receive, Scope, Send

OPEN = {"/health/live", "/health/ready"}
SHORTEST = 16
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Read the SHA-256 digest of each key in a file.

    A line is a key, or ``sha256:`` and the hex digest of a key. A line that starts with ``#`` is a comment.

    Raises:
        SettingsError: the file cannot be read, it has no key, or a key is too short or has other characters than ASCII.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"keys: {path} cannot be read: {error}") from error
    digests = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if match := DIGEST.fullmatch(key):
            digests.append(bytes.fromhex(match[1]))
        elif len(key) < SHORTEST or not key.isascii() or " " in key:
            message = f"keys: line {number} of {path.name} is not a key"
            raise SettingsError(f"{message}: use {SHORTEST} or more ASCII characters without spaces")
        else:
            digests.append(hashlib.sha256(key.encode()).digest())
    if not digests:
        raise SettingsError(f"keys: {path} has no key; make one with `openssl rand -hex 32`")
    return tuple(digests)


class Keys:
    """ASGI middleware: refuses requests without a known bearer key. Without digests it lets all requests pass."""

    def __init__(self, app: App, digests: Sequence[bytes]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and self._digests and scope["path"] not in OPEN
        if guarded and not self._known(_bearer(scope)):
            raise Unauthorized("send a key that this server knows in the header `Authorization: Bearer <key>`")
        await self._app(scope, receive, send)

    def _known(self, key: bytes) -> bool:
        """Compare with all keys. The time does not depend on which key matches."""
        digest = hashlib.sha256(key).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _bearer(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = bytes(value).partition(b" ")
            return key.strip() if scheme.lower() == b"bearer" else b""
    return b""
