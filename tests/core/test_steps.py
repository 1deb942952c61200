"""What the probabilities of steps say of an answer."""

import pytest

from tureen.answer_steps import STEP_BREAK, split_steps
from tureen_core.steps import AGGREGATES, Aggregate, aggregate_steps


@pytest.mark.parametrize(("how", "value"), [("min", 0.25), ("product", 0.1), ("last", 0.5), ("mean", 1.55 / 3)])
def test_each_aggregate_is_what_its_name_says(how: Aggregate, value: float) -> None:
    assert aggregate_steps([0.8, 0.25, 0.5], how) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("how", AGGREGATES)
def test_one_step_is_the_answer_and_none_is_refused(how: Aggregate) -> None:
    assert aggregate_steps([0.3], how) == 0.3
    with pytest.raises(ValueError, match="without steps"):
        aggregate_steps([], how)


def test_blank_lines_part_steps() -> None:
    assert split_steps("one\nstill one\n\ntwo") == ["one\nstill one", "two"]
    assert STEP_BREAK.join(split_steps("a\n\n\n\nb")) == "a\n\n\n\nb"
    assert split_steps("one\n \nstill one\n\ntwo") == ["one\n \nstill one", "two"]


def test_an_answer_that_begins_or_ends_with_the_break_has_no_blank_step_there() -> None:
    assert split_steps("\n\none\n\ntwo\n\n") == ["one", "two"]
    assert split_steps(" \n\n\n\none\n") == ["one\n"]
    assert split_steps("\n\n") == ["\n\n"]
