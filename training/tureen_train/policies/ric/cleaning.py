"""Answers that a policy wrote, cleaned before they are rewarded. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from tureen_train.config import Cleaning
from tureen_train.policies.rollouts.rounds import Written


def cut_answer(text: str, marks: Sequence[str]) -> str:
    """Cut a text at the first of some marks, and remove the white space before it.

    The mark is found as a whole text: no other letters are removed at the end.
    """
    places = [at for at in (text.find(mark) for mark in marks) if at >= 0]
    return text[: min(places)].rstrip() if places else text


def find_excess(text: str, settings: Cleaning) -> str | None:
    """Say which text stands too often in an answer; None if none does."""
    for part, most in settings.most.items():
        if text.count(part) > most:
            return f"answers with more than {most} {part!r}" if most else f"answers with {part!r}"
    return None


def clean_answer(written: Written, settings: Cleaning) -> Written:
    """Cut an answer at the marks of a further turn.

    The ids and log-probabilities are those of the whole answer, so one that is cut has none, and counts as finished.
    """
    text = cut_answer(written.sample.text, settings.cut_at)
    if text == written.sample.text:
        return written
    return Written(replace(written.sample, text=text, ids=(), finished=True, logprobs=()))
