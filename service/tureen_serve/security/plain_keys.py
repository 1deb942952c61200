"""A file with one key a line: each may do everything. Keys that are short or easy to guess are refused."""

import hashlib
import math
import re
from collections.abc import Iterable

from tureen_serve.settings import SettingsError

SHORTEST = 16
LEAST_BITS = 24  # of the estimate below; random keys of 16 hex digits have more than 30
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
KNOWN = ("changeme", "change-me", "example", "letmein", "passwor", "placeholder", "qwerty", "replace", "secret", "your")
MAKE_ONE = "make one with `tureen-serve key new`"


def read_plain_keys(lines: Iterable[str], name: str) -> dict[bytes, int]:
    """Read the SHA-256 digest of each key, and the number of its line.

    A line is a key, or ``sha256:`` and the hex digest of a key. A line that starts with ``#`` is a comment.

    Args:
        name: the file's name, for the messages.

    Raises:
        SettingsError: there is no key; or a key is too short, can be guessed, or has other characters than ASCII.
    """
    digests = {}
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if match := DIGEST.fullmatch(key):
            digests[bytes.fromhex(match[1])] = number
        elif fault := explain_weakness(key):
            raise SettingsError(f"keys: line {number} of {name} is not a key: {fault}; {MAKE_ONE}")
        else:
            digests[hashlib.sha256(key.encode()).digest()] = number
    if not digests:
        raise SettingsError(f"keys: {name} has no key; {MAKE_ONE}")
    return digests


def explain_weakness(key: str) -> str | None:
    """Say why a key must not be used, or None. The key itself is never in the text."""
    if len(key) < SHORTEST or not key.isascii() or " " in key:
        return f"use {SHORTEST} or more ASCII characters without spaces"
    word = next((each for each in KNOWN if each in key.lower()), None)
    if word is not None:
        return f"it contains {word!r}, as the keys of examples do"
    if estimate_bits(key) < LEAST_BITS:
        return "it can be guessed, because it repeats itself or counts up"
    return None


def estimate_bits(key: str) -> float:
    """Estimate how many bits a guesser must try: a bound from above, which finds repetitions and runs only.

    A character counts if it does not continue a run (``aaaa``, ``3456``, ``9876``), and if it does not end three
    characters that stood before in the key. Each counts as many bits as the number of different characters has.
    """
    counted, seen = 0, set()
    for place, character in enumerate(key):
        step = ord(character) - ord(key[place - 1]) if place else None
        three = key[max(0, place - 2) : place + 1]
        counted += step not in (-1, 0, 1) and three not in seen
        seen.add(three)
    return counted * math.log2(len(set(key)))
