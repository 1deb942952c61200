"""Keys one a line: which are read, and which are too easy to guess."""

import base64
import hashlib
import random

import pytest
from serve.keys import KEY, OTHER

from tureen_serve.security.plain_keys import estimate_bits, explain_weakness, read_plain_keys
from tureen_serve.settings import SettingsError


def test_a_line_is_a_key_or_its_digest_or_a_comment() -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    found = read_plain_keys(["# the team", f"  {KEY}  ", "", f"sha256:{digest}"], "keys")
    assert found == {hashlib.sha256(KEY.encode()).digest(): 2, bytes.fromhex(digest): 4}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["# none yet"], "has no key"),
        ([KEY, "short"], "line 2 .* 16 or more"),
        (["two words are no key at all"], "line 1"),
        (["schlüssel-schlüssel-schlüssel"], "line 1"),
        (["sha256:0123"], "line 1"),
        (["k" * 40], "guessed"),
        (["0123456789abcdef"], "guessed"),
        (["abcabcabcabcabcabcabc"], "guessed"),
        (["zyxwvutsrqponmlkjihgfedcba"], "guessed"),
        (["1111222233334444"], "guessed"),
        (["Password2027Password"], "'passwor'"),
        (["sk-changeme-8c1d0b7e"], "'changeme'"),
    ],
)
def test_a_key_that_can_be_guessed_is_refused_without_being_shown(lines: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        read_plain_keys(lines, "keys")
    assert not any(line in str(caught.value) for line in lines)
    assert "tureen-serve key new" in str(caught.value)


def test_random_keys_of_every_usual_form_are_accepted() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        content = chance.randbytes(8)
        assert explain_weakness(content.hex()) is None
        assert explain_weakness(base64.urlsafe_b64encode(chance.randbytes(12)).decode()) is None
    assert estimate_bits(content.hex()) < 64, "more than the key has"
