"""The keys of a server, found by the bearer token of a request; and the file that they are read from."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tureen_serve.security.callers import Caller
from tureen_serve.security.key_entries import KeyDocument, KeyEntry, KeyQuota, digest_key, find_key_id
from tureen_serve.security.plain_keys import read_plain_keys
from tureen_serve.security.quotas import Quota
from tureen_serve.settings import SettingsError

LARGEST = 2**20  # bytes of a file of keys


@dataclass(frozen=True)
class KnownKey:
    """The salt and the digest of a key, and who has it."""

    salt: bytes
    digest: bytes
    caller: Caller


class KeyRing:
    """All keys, each with its caller.

    Args:
        plain: SHA-256 of a key → its caller.
        entries: id of a key → what is known of it.
    """

    def __init__(self, plain: Mapping[bytes, Caller], entries: Mapping[bytes, KnownKey]) -> None:
        self._plain = plain
        self._entries = entries

    @property
    def callers(self) -> list[Caller]:
        """The callers of all keys."""
        return [*self._plain.values(), *(known.caller for known in self._entries.values())]

    def find_caller(self, key: bytes) -> Caller | None:
        """Find who has this key; None if nobody has.

        A key with an id is compared with one entry, in constant time. Any other is looked up by its digest: how long
        that takes tells nothing, because a caller cannot choose the digest.
        """
        if not key:
            return None
        known = self._entries.get(find_key_id(key))
        if known is not None and hmac.compare_digest(digest_key(key, known.salt), known.digest):
            return known.caller
        return self._plain.get(hashlib.sha256(key).digest())


def read_key_ring(path: Path, before: KeyRing | None = None) -> KeyRing:
    """Read a file of keys: a YAML or JSON map ``{keys: [...]}``, or one key a line.

    Args:
        before: what was read earlier. A key with the same name and the same quota goes on with what it has used.

    Raises:
        SettingsError: the file cannot be read, or a key cannot be used; no key is in the message.
    """
    return parse_key_ring(read_key_file(path), path.name, before)


def read_key_file(path: Path) -> bytes:
    """Read the bytes of a file of keys.

    Raises:
        SettingsError: it cannot be read, or it is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"keys: {path} cannot be read: {error}") from error
    if len(content) > LARGEST:
        raise SettingsError(f"keys: {path} has more than {LARGEST} bytes; is it a file of keys?")
    return content


def parse_key_ring(content: bytes, name: str, before: KeyRing | None = None) -> KeyRing:
    """Parse the bytes of a file of keys, as :func:`read_key_ring`.

    Raises:
        SettingsError: a key cannot be used.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"keys: {name} cannot be read: {error.reason} at byte {error.start}") from None
    if not _has_entries(lines):
        plain = read_plain_keys(lines, name)
        return KeyRing({digest: Caller(f"line-{number}") for digest, number in plain.items()}, {})
    used = {caller.name: caller.quota for caller in before.callers} if before else {}
    entries = _parse_entries(content, name).keys
    known = {
        each.id.encode(): KnownKey(*each.salt_and_digest, _make_caller(each, used.get(each.name))) for each in entries
    }
    return KeyRing({}, known)


def _has_entries(lines: list[str]) -> bool:
    """Whether a file is a map of entries: no key begins with a brace, or has a space or nothing after ``keys:``."""
    told = (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    first = next((line for line in told if line != "---"), "")
    return first.startswith("{") or (first + " ").startswith("keys: ")


class _UniqueFields(yaml.SafeLoader):
    """Refuses a map with a field twice. PyYAML takes the last one, so a second ``keys:`` would drop all before it."""


def _make_map(loader: _UniqueFields, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [loader.construct_object(key) for key, _ in node.value]
    if len({str(name) for name in names}) < len(names):
        raise yaml.MarkedYAMLError(problem="a field stands twice", problem_mark=node.start_mark)
    return loader.construct_mapping(node, deep=True)


_UniqueFields.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _make_map)


def _parse_entries(content: bytes, name: str) -> KeyDocument:
    try:
        return KeyDocument.model_validate(yaml.load(content, _UniqueFields))
    except yaml.MarkedYAMLError as error:  # its text would show a line of the file
        mark = error.problem_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"keys: {name} is not YAML{where}: {error.problem}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"keys: {name}: {where}: {text}" if where else f"keys: {name}: {text}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"keys: {name} is not YAML ({type(error).__name__})") from None


def _make_caller(entry: KeyEntry, before: Quota | None) -> Caller:
    quota = _make_quota(entry.quota)
    if quota is not None and before is not None and before.limits == quota.limits:
        quota = before
    return Caller(entry.name, entry.tenant, entry.scopes, entry.expires, quota)


def _make_quota(quota: KeyQuota) -> Quota | None:
    if quota == KeyQuota():
        return None
    return Quota(quota.requests_per_minute, quota.tokens_per_minute)
