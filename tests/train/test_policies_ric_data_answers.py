"""The answers of the data: both of a pair, and those that are left out, by reason."""

from pathlib import Path

import pytest
import tiny

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.policies.preferences import BARE
from tureen_train.policies.ric.data_answers import (
    NO_TEXT,
    SILENT,
    TOO_LONG,
    TOO_SHORT,
    collect_data_answers,
)

ASKED = (user_turn("why?"),)
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}


@pytest.fixture
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base, max_length=64))


def record(*answers: str, prompt: tuple[dict[str, str], ...] = ASKED, source: str = "a/file:1") -> Record:
    return Record(prompt, tuple((assistant_turn(each),) for each in answers), (0.0,) * len(answers), source)


def test_all_answers_are_rows_whatever_their_labels(renderer: Renderer) -> None:
    records = [record("a fox", "a dog"), record("a fox", "leaves", "a fox"), record("a dog", source="b/file:1")]
    found = collect_data_answers(records, renderer, 0)
    assert [each.id for each in found.prompts] == ["file:1", "file:1#2", "file:1#3"]
    assert [[each.text for each in own] for own in found.samples] == [
        ["a fox", "a dog"],
        ["a fox", "leaves", "a fox"],
        ["a dog"],
    ]
    assert (found.report.kept, found.report.lost) == (6, 0)
    written = found.make_writer()(found.prompts[1:])
    assert [[each.sample for each in own] for own in written] == [list(own) for own in found.samples[1:]]


def test_what_cannot_be_learnt_whole_is_left_out_and_counted(renderer: Renderer) -> None:
    records = [
        record("z" * 200, "a fox"),
        record("a", prompt=()),
        record("a", prompt=({"role": "system", "content": "Be kind."},)),
        Record(ASKED, ((CALL,), (assistant_turn("a"), user_turn("b"), assistant_turn("c"))), (0.0, 0.0)),
    ]
    found = collect_data_answers(records, renderer, 0)
    assert dict(found.report.left_out) == {TOO_LONG: 1, BARE: 1, SILENT: 1, NO_TEXT: 2}
    assert [[each.text for each in own] for own in found.samples] == [["a fox"]]
    assert [each.number for own in found.samples for each in own] == [0]
    assert dict(collect_data_answers(records[:1], renderer, 60).report.left_out) == {TOO_LONG: 1, TOO_SHORT: 1}
