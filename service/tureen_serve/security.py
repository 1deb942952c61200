"""Who may ask: keys, kept as digests, and a layer that guards every path that is not named open.

One scope for now: a key may do everything. Without a keys file there is no guard, and settings refuse to bind beyond
loopback.
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
    """SHA-256 of each key in a file: a key on each line, or ``sha256:`` and its hex digest; ``#`` starts a comment.

    Raises:
        SettingsError: the file cannot be read or holds no key, or a key is short enough to be guessed.
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
            raise SettingsError(
                f"keys: line {number} of {path.name} is no key: use {SHORTEST} or more ASCII characters"
            )
        else:
            digests.append(hashlib.sha256(key.encode()).digest())
    if not digests:
        raise SettingsError(f"keys: {path} holds no key; `openssl rand -hex 32` makes one")
    return tuple(digests)


class Keys:
    """ASGI: lets a request through whose bearer key is known. No keys, no guard."""

    def __init__(self, app: App, digests: Sequence[bytes]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and self._digests and scope["path"] not in OPEN
        if guarded and not self._known(_bearer(scope)):
            raise Unauthorized("send a key this server knows: Authorization: Bearer <key>")
        await self._app(scope, receive, send)

    def _known(self, key: bytes) -> bool:
        """Compares with all keys, in the same time whichever fits."""
        digest = hashlib.sha256(key).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _bearer(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = bytes(value).partition(b" ")
            return key.strip() if scheme.lower() == b"bearer" else b""
    return b""
