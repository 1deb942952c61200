"""The flags of plain models: which there are, and what is said of wrong values."""

import pytest

from tureen_core.plain.option_flags import describe_option, name_flags, read_plain_flags
from tureen_core.plain.options import PlainError, PlainOptions


def read(**given: str) -> PlainOptions:
    return read_plain_flags(given, name_flags())


def test_each_option_is_a_flag_with_a_help() -> None:
    flags = name_flags(form="--reward-form")
    assert flags.keys() == PlainOptions.model_fields.keys()
    assert (flags["form"], flags["max_length"]) == ("--reward-form", "--max-length")
    for name in flags:
        text = describe_option(name)
        assert len(text.split()) > 2, name
        assert not any(mark in text for mark in ("`", ":mod", ":data", "  ", "\n")), text


def test_values_are_read_by_the_types_of_the_fields() -> None:
    found = read(objectives="helpful, safe", max_length="512", output="sigmoid", tokens="No,Yes", step_mark="<s>")
    assert found == PlainOptions(
        objectives=("helpful", "safe"), max_length=512, output="sigmoid", tokens=("No", "Yes"), step_mark="<s>"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_length": "x"}, "--max-length: .*'x' was given"),
        ({"max_length": "2"}, "--max-length: .*'2' was given"),
        ({"output": "logit"}, "--output: .*sigmoid"),
        ({"objectives": "good,very good"}, "--objectives: .*'very good' was given"),
    ],
)
def test_a_wrong_value_names_its_flag(given: dict[str, str], told: str) -> None:
    with pytest.raises(PlainError, match=told):
        read(**given)
