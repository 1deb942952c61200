"""The frame of all policy runs: what it adds to the prompts."""

import pytest

from tureen.records.schema import Record
from tureen_train.config import PromptPreferences
from tureen_train.policies.run import state_preferences
from tureen_train.records.run_data import RunData


def record(answer: str, prompt: str = "why?") -> Record:
    return Record(({"role": "user", "content": prompt},), (({"role": "assistant", "content": answer},),), (1.0,))


def test_preferences_are_stated_in_all_prompts_after_the_split(caplog: pytest.LogCaptureFixture) -> None:
    data = RunData([record("a")], {"heldout": [record("b", prompt="what?")]}, {})
    with caplog.at_level("INFO", "tureen.train"):
        stated = state_preferences(data, PromptPreferences(add="combinations"))
    assert len(stated.train) == len(stated.eval["heldout"]) == 8
    assert all(each.prompt[0]["content"].startswith("what? Generate") for each in stated.eval["heldout"])
    assert "preferences are added to 1 prompts, which makes 8" in caplog.text
    assert state_preferences(data, PromptPreferences()) is data
