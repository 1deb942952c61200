"""The file of keys: its two forms, what is refused in it, and how a key is found."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from serve.keys import KEY, OTHER, make_entry, write_entries, write_lines

from tureen.errors import Forbidden, Unauthorized
from tureen_serve.security.key_ring import LARGEST, KeyRing, read_key_ring
from tureen_serve.security.scopes import ALL_SCOPES, KeyScope
from tureen_serve.settings import SettingsError


def ring_of(folder: Path, *entries: dict[str, Any]) -> KeyRing:
    return read_key_ring(write_entries(folder / "keys", *entries))


def test_a_key_a_line_may_do_everything(tmp_path: Path) -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    ring = read_key_ring(write_lines(tmp_path, "# ours", KEY, f"sha256:{digest}"))
    for key, name in ((KEY, "line-2"), (OTHER, "line-3")):
        caller = ring.find_caller(key.encode())
        assert caller is not None
        assert (caller.name, caller.scopes, caller.tenant) == (name, ALL_SCOPES, "default")
    assert ring.find_caller(b"") is ring.find_caller(b"another") is None


def test_an_entry_says_who_the_key_is(tmp_path: Path) -> None:
    key, entry = make_entry("loop", ["score", "read"], tenant="alignment", expires="2126-01-31T12:00:00+02:00")
    ring = ring_of(tmp_path, entry, make_entry("other")[1])
    caller = ring.find_caller(key.encode())
    assert caller is not None
    assert (caller.name, caller.tenant, sorted(caller.scopes)) == ("loop", "alignment", ["read", "score"])
    assert caller.expires == datetime(2126, 1, 31, 10, tzinfo=UTC)
    caller.check_expiry()
    with pytest.raises(Forbidden, match="scope `generate`, and the key 'loop' has: read, score"):
        caller.require_scope(KeyScope.GENERATE)
    assert ring.find_caller(key[:-1].encode()) is None
    assert ring.find_caller(f"tur_{entry['id']}_x".encode()) is None
    assert ring.find_caller(f"tur_000000000000_{key[17:]}".encode()) is None


def test_no_key_can_be_read_from_the_file_and_two_digests_of_it_differ(tmp_path: Path) -> None:
    key, entry = make_entry("loop")
    assert key.rpartition("_")[2] not in json.dumps(entry)
    salt, digest = entry["digest"].split(":")[1:]
    assert digest == hashlib.sha256(bytes.fromhex(salt) + key.encode()).hexdigest()
    assert digest != hashlib.sha256(key.encode()).hexdigest()
    assert len(key.split("_", 2)[2]) >= 43


@pytest.mark.parametrize(("expires", "ended"), [("2020-01-01", True), ("2126-01-01", False)])
def test_a_key_ends_when_its_day_begins(tmp_path: Path, expires: str, ended: bool) -> None:
    key, entry = make_entry("loop")
    path = tmp_path / "keys"
    path.write_text(f"# ours\n---\n{yaml.safe_dump({'keys': [entry]})}  expires: {expires}\n")
    caller = read_key_ring(path).find_caller(key.encode())
    assert caller is not None
    if not ended:
        caller.check_expiry()
        return
    with pytest.raises(Unauthorized, match="'loop' ended at 2020-01-01T00:00:00") as caught:
        caller.check_expiry()
    assert caught.value.code == "expired_api_key"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scopes": []}, "keys.0.scopes: .*at least 1 item"),
        ({"scopes": ["score", "root"]}, "keys.0.scopes.1: .*'score'"),
        ({"digest": KEY}, "keys.0.digest"),
        ({"digest": "sha256:" + "0" * 64}, "keys.0.digest"),
        ({"id": "loop"}, "keys.0.id"),
        ({"name": "a b"}, "keys.0.name"),
        ({"expires": "2126-01-01T00:00:00"}, "keys.0.expires: .*timezone"),
        ({"expires": "2126-13-01"}, "keys.0.expires: .*month"),
        ({"quota": {"requests_per_minute": 0}}, "keys.0.quota.requests_per_minute"),
        ({"quota": {"requests": 5}}, "keys.0.quota.requests"),
        ({"key": KEY}, "keys.0.key"),
    ],
)
def test_a_bad_entry_is_told_by_its_field(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        ring_of(tmp_path, {**make_entry("loop")[1], **change})
    assert KEY not in str(caught.value)


def test_two_entries_have_two_names_and_two_ids(tmp_path: Path) -> None:
    entry, other = make_entry("loop")[1], make_entry("loop")[1]
    with pytest.raises(SettingsError, match="two keys have the name 'loop'"):
        ring_of(tmp_path, entry, other)
    with pytest.raises(SettingsError, match="two keys have the id"):
        ring_of(tmp_path, entry, {**entry, "name": "b"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keys: []", "keys: .*at least 1 item"),
        ("keys:\n", "keys: .*list"),
        ("{}", "keys: Field required"),
        ("keys: [a\nb: c", "not YAML at line"),
        ('{"keys": [' * 2000, "not YAML"),
        ("keys: []\nkeys: []", "a field stands twice"),
        ("keys: !!python/object/apply:os.system [x]", "not YAML"),
        ("keys: &a [*a]", "not YAML"),
        ("", "has no key"),
        ("x" * (LARGEST + 1), f"more than {LARGEST} bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_key_ring(tmp_path / "keys")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key_ring(tmp_path)
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read.*byte 0"):
        read_key_ring(tmp_path / "keys")


def test_a_quota_that_stays_the_same_goes_on(tmp_path: Path) -> None:
    key, entry = make_entry("loop", quota={"requests_per_minute": 1})
    first = ring_of(tmp_path, entry)
    again = read_key_ring(write_entries(tmp_path / "keys", entry, make_entry("other")[1]), first)
    more = read_key_ring(write_entries(tmp_path / "keys", {**entry, "quota": {"requests_per_minute": 2}}), again)
    quotas = [found.quota for ring in (first, again, more) if (found := ring.find_caller(key.encode()))]
    assert quotas[0] is quotas[1] is not quotas[2]
