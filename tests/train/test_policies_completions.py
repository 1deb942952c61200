"""Which answers are learnt, as whose ids, and what is left out."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from train.test_policies_preferences import ASKED, CALLED, SAID, pair, renderer, tool

from tureen.records.schema import BadRecord, Record
from tureen_core.base import load_tokenizer
from tureen_core.chat_template import make_template_inputs
from tureen_core.template import Renderer
from tureen_train.policies.completions import IGNORED, Completions, encode_completions

NAN = math.nan


def record(*answers: str, scores: tuple[float, ...] = (), prompt: str = "why?", **changes: Any) -> Record:
    turns = ({"role": "user", "content": prompt},) if prompt else ()
    texts = tuple(({"role": "assistant", "content": answer},) for answer in answers)
    return Record(turns, texts, scores or (NAN,) * len(answers), **changes)


def texts(encoded: Completions, made: Renderer) -> list[str]:
    return [made.tokenizer.decode(item.answer) for item in encoded.items]


def left_out(encoded: Completions) -> dict[str, int]:
    return {reason: count for reason, count in encoded.report.left_out.items() if count}


def test_rows_learn_the_answer_and_only_read_the_prompt() -> None:
    made = renderer(tiny.CHATML)
    encoded = encode_completions([record("a fox")], made)
    (row,) = encoded.make_rows()
    whole = made.render_conversation([{"role": "user", "content": "why?"}, {"role": "assistant", "content": "a fox"}])
    prompt = made.tokenize_prompt([{"role": "user", "content": "why?"}])
    assert row["input_ids"].tolist() == whole.ids
    assert row["labels"].tolist() == [IGNORED] * len(prompt) + whole.ids[len(prompt) :]


def test_the_best_answer_or_all_are_learnt() -> None:
    made = renderer(tiny.CHATML)
    records = [record("a", "b", "c", scores=(0.1, 0.9, NAN)), record("d", "e", scores=(1.0, 1.0)), record("f")]
    assert texts(encode_completions(records, made), made) == ["b<|im_end|>", "d<|im_end|>", "f<|im_end|>"]
    everything = texts(encode_completions(records, made, "all"), made)
    assert everything == [f"{letter}<|im_end|>" for letter in "abcdef"]


def test_several_answers_without_a_score_have_no_best_one() -> None:
    made = renderer(tiny.CHATML)
    encoded = encode_completions([record("a", "b"), record("c")], made)
    assert texts(encoded, made) == ["c<|im_end|>"]
    assert left_out(encoded) == {"without a score among several": 1}
    assert len(encode_completions([record("a", "b")], made, "all").items) == 2


def test_every_turn_of_the_assistant_is_learnt_and_no_other() -> None:
    """With the ids that the service reads for what stands before it."""
    made = renderer()
    called = pair(CALLED, SAID, tools=[tool("temperature", "city")])
    encoded = encode_completions([called], made)
    inputs = make_template_inputs(called.template_arguments)
    first, second = encoded.items
    assert list(first.ids[: first.start]) == made.tokenize_prompt([ASKED], inputs)
    assert '"temperature"' in made.tokenizer.decode(first.answer)
    assert list(second.ids[: second.start]) == made.tokenize_prompt([ASKED, *CALLED[:2]], inputs)
    assert "it is cold" in made.tokenizer.decode(second.answer)
    assert "-3" not in made.tokenizer.decode(first.answer) + made.tokenizer.decode(second.answer)


def test_of_a_whole_dialogue_the_last_turn_is_learnt() -> None:
    made = renderer(tiny.CHATML)
    whole = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    )
    (item,) = encode_completions([Record((), (whole,), (1.0,))], made).items
    assert list(item.ids[: item.start]) == made.tokenize_prompt(whole[:3])
    assert made.tokenizer.decode(item.answer) == "d<|im_end|>"


def test_an_answer_that_was_not_ended_gets_no_end_mark() -> None:
    made = renderer(tiny.CHATML)
    unfinished = record("a fox", "b", scores=(1.0, 0.0), meta={"unfinished": [0]})
    assert texts(encode_completions([unfinished], made, "all"), made) == ["a fox", "b<|im_end|>"]


def test_what_has_no_prompt_or_a_long_one_is_left_out_and_cuts_are_counted() -> None:
    made = renderer(tiny.CHATML, max_length=40)
    records = [record("a", prompt=""), record("b", prompt="z" * 100), record("x" * 100), record("c")]
    encoded = encode_completions(records, made)
    assert left_out(encoded) == {"without a prompt": 1, "with a prompt longer than policy.max_length": 1}
    assert (encoded.report.unit, encoded.report.kept, encoded.report.truncated) == ("answers", 2, 1)
    assert len(encoded.items[0].ids) == 40
    assert "<|im_end|>" not in made.tokenizer.decode(encoded.items[0].answer)


def test_tools_without_a_place_name_their_record(base: Path) -> None:
    made = Renderer(load_tokenizer(base), tiny.reading(base))
    with pytest.raises(BadRecord, match="here: cannot be rendered"):
        encode_completions([record("a", tools=(tool("clock"),), source="here")], made)
