"""The entries of a key file: salted digests of keys, with name, tenant, scopes, quota and expiry.

A key is ``tur_ID_SECRET``. The id finds the entry, the secret is 32 random bytes. So a guess is hopeless whatever the
hash, and a slow, memory-hard hash, which protects passwords, would only slow down each request. The salt makes the
digests of one key in two files different.
"""

import hashlib
import re
import secrets
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field, PositiveInt, StringConstraints, model_validator

from tureen_serve.family_settings import SettingsGroup
from tureen_serve.inference.demand import NO_TENANT
from tureen_serve.security.scopes import KeyScope

MARK = b"tur"
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SALTED = re.compile(r"sha256:([0-9a-f]{32}):([0-9a-f]{64})")

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def _read_day(value: Any) -> Any:
    """Read a date without a time as its first second in UTC."""
    if isinstance(value, str) and DAY.fullmatch(value):
        value = date.fromisoformat(value)
    return datetime.combine(value, time(), UTC) if type(value) is date else value


class KeyQuota(SettingsGroup):
    """What a key may use in a minute. None stands for no bound."""

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None


class KeyEntry(SettingsGroup):
    """One key in the file.

    Attributes:
        id: the public part of the key.
        digest: ``sha256:SALT:DIGEST``, the SHA-256 of the salt's bytes and the whole key.
        expires: a time with its zone, or a date: the key ends when the day begins in UTC.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: Label
    tenant: Label = NO_TENANT
    scopes: Annotated[frozenset[KeyScope], Field(min_length=1)]
    digest: Annotated[str, StringConstraints(pattern=f"^{SALTED.pattern}$")]
    expires: Annotated[AwareDatetime | None, BeforeValidator(_read_day)] = None
    quota: KeyQuota = KeyQuota()

    @property
    def salt_and_digest(self) -> tuple[bytes, bytes]:
        """The bytes of the salt, and of the digest."""
        _, salt, digest = self.digest.split(":")
        return bytes.fromhex(salt), bytes.fromhex(digest)


class KeyDocument(SettingsGroup):
    """The whole file: ``{keys: [entry, ...]}``."""

    keys: Annotated[list[KeyEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_names(self) -> "KeyDocument":
        for field in ("id", "name"):
            values = [getattr(each, field) for each in self.keys]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two keys have the {field} {twice!r}; give each its own")
        return self


def digest_key(key: bytes, salt: bytes) -> bytes:
    """Digest a key."""
    return hashlib.sha256(salt + key).digest()


def make_key() -> tuple[str, str, str]:
    """Make a random key. Returns the key, its id, and its salted digest."""
    name = secrets.token_hex(6)
    key = f"{MARK.decode()}_{name}_{secrets.token_urlsafe(32)}"
    salt = secrets.token_bytes(16)
    return key, name, f"sha256:{salt.hex()}:{digest_key(key.encode(), salt).hex()}"


def find_key_id(key: bytes) -> bytes:
    """Return the id in a key; empty if it has another form."""
    mark, _, rest = key.partition(b"_")
    return rest.partition(b"_")[0] if mark == MARK else b""
