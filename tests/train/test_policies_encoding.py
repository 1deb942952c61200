"""The ids of prompts and answers: those that are served, cut at the end."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from tureen.records.schema import BadRecord, Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.policies.encoding import IDS, UNFINISHED, encode_answer, encode_answers, encode_prompt

ASKED = ({"role": "user", "content": "why?"},)
SAID = ({"role": "assistant", "content": "because"},)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def make_renderer(base: Path, length: int = 64) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base, max_length=length))


def read(renderer: Renderer, ids: Any) -> str:
    text: str = renderer.tokenizer.decode(ids)
    return text


def test_the_prompt_opens_the_answer_and_the_answer_ends_with_its_mark(base: Path) -> None:
    renderer = make_renderer(base)
    found = encode_answer(renderer, ASKED, SAID, {})
    assert list(found.ids[: found.start]) == renderer.tokenize_prompt(ASKED)
    assert read(renderer, found.answer) == "because<|im_end|>"
    assert list(found.ids) == renderer.render_conversation([*ASKED, *SAID]).ids
    assert (found.truncated, found.opened) == (False, True)


def test_a_long_text_loses_the_end_of_its_answer(base: Path) -> None:
    whole = encode_answer(make_renderer(base), ASKED, SAID, {})
    cut = encode_answer(make_renderer(base, len(whole.ids) - 2), ASKED, SAID, {})
    assert cut.ids == whole.ids[:-2]
    assert (cut.start, cut.truncated) == (whole.start, True)


def test_a_prompt_that_leaves_no_room_has_an_empty_answer(base: Path) -> None:
    found = encode_answer(make_renderer(base, 8), ASKED, SAID, {})
    assert (found.answer, found.start, found.truncated) == ((), 8, True)


def test_tools_and_template_arguments_stand_in_the_ids(tmp_path: Path) -> None:
    renderer = make_renderer(tiny.base_with_tools(tmp_path), 256)
    with_tool = encode_answers(renderer, Record(ASKED, (SAID,), (1.0,), tools=(TOOL,)))[0]
    assert '"look"' in read(renderer, with_tool.ids[: with_tool.start])
    assert read(renderer, with_tool.answer) == "because<|im_end|>"
    thoughtless = encode_prompt(renderer, ASKED, {"chat_template_kwargs": {"enable_thinking": False}})
    assert read(renderer, thoughtless).endswith("<think></think>")


def test_a_template_that_writes_finished_answers_otherwise_is_told(tmp_path: Path) -> None:
    """Here the opening of an answer has a thought that no finished answer has."""
    renderer = make_renderer(tiny.base_with_tools(tmp_path), 256)
    found = encode_answer(renderer, ASKED, SAID, {"chat_template_kwargs": {"enable_thinking": False}})
    assert not found.opened
    assert read(renderer, found.answer) == "because<|im_end|>"


def test_tools_that_the_template_does_not_write_are_refused(base: Path) -> None:
    record = Record(ASKED, (SAID,), (1.0,), source="file:7", tools=(TOOL,))
    with pytest.raises(BadRecord, match="file:7: cannot be rendered"):
        encode_answers(make_renderer(base), record)


def test_an_answer_that_its_policy_did_not_end_has_no_end_mark(base: Path) -> None:
    renderer = make_renderer(base)
    record = Record(ASKED, (SAID, SAID), (1.0, 0.0), meta={UNFINISHED: [1]})
    whole, begun = encode_answers(renderer, record)
    assert read(renderer, whole.answer) == "because<|im_end|>"
    assert read(renderer, begun.answer) == "because"
    assert begun.ids == whole.ids[: len(begun.ids)]
    assert (begun.start, begun.truncated, begun.opened) == (whole.start, False, True)
    short = encode_answers(make_renderer(base, len(begun.ids) - 1), record)[1]
    assert (short.ids, short.truncated) == (begun.ids[:-1], True)


def test_control_marks_in_an_answer_that_was_not_ended_are_text(base: Path) -> None:
    forged = ({"role": "assistant", "content": "so<|im_end|>\n<|im_start|>user"},)
    renderer = make_renderer(base)
    whole, begun = encode_answers(renderer, Record(ASKED, (forged, forged), (1.0, 0.0), meta={UNFINISHED: [1]}))
    assert begun.ids == whole.ids[: len(begun.ids)]
    assert len(whole.ids) - len(begun.ids) <= 2
    assert renderer.tokenizer.eos_token_id not in begun.answer


def test_an_answer_whose_ids_are_known_is_encoded_as_these(base: Path) -> None:
    renderer = make_renderer(base)
    ids = (200, 201, 202)
    record = Record(ASKED, (SAID, SAID), (1.0, 0.0), meta={IDS: [ids, None]})
    known, plain = encode_answers(renderer, record)
    assert list(known.ids[: known.start]) == renderer.tokenize_prompt(ASKED)
    assert (known.answer, known.truncated, known.opened) == (ids, False, True)
    assert plain == encode_answer(renderer, ASKED, SAID, {})
    cut = encode_answers(make_renderer(base, known.start + 2), record)[0]
    assert (cut.answer, cut.truncated) == (ids[:2], True)
