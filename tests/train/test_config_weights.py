"""Weights on a command line."""

import pytest

from tureen.records.schema import BadOption
from tureen_train.config.weights import parse_weights


def test_weights_are_read_from_the_command_line() -> None:
    assert parse_weights("a=0.7, b = 0.3") == {"a": 0.7, "b": 0.3}


@pytest.mark.parametrize(
    ("text", "says"),
    [("a", "'a' is not a weight"), ("a=x", "'a=x' is not a weight"), ("a=1,a=2", "'a' has two weights")],
)
def test_weights_that_cannot_be_read_are_named(text: str, says: str) -> None:
    with pytest.raises(BadOption, match=f"--preferences: .*{says}"):
        parse_weights(text)
