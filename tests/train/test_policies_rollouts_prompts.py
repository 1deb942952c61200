"""Prompts of records: each once, none too long, and drawn so that all have their turn."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import (
    TOO_LONG,
    UNREADABLE,
    PromptSet,
    check_prompts,
    collect_prompts,
    draw_prompts,
)
from tureen_train.records.encoding_report import EncodingReport

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def record(text: str, source: str = "a/file.jsonl:1", **more: Any) -> Record:
    return Record(({"role": "user", "content": text},), (), (), source, **more)


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), Reading())


def numbered(count: int) -> PromptSet:
    prompts = [Prompt(f"file:{number}", ({"role": "user", "content": "?"},)) for number in range(count)]
    return PromptSet(prompts, [number % 5 for number in range(count)], 0, EncodingReport("prompts", count))


def test_a_prompt_is_taken_once_whatever_its_white_space(renderer: Renderer) -> None:
    records = [record("why?"), record("when?", "a/file.jsonl:2"), record(" why? ", "a/file.jsonl:3")]
    found = collect_prompts(records, renderer, 100)
    assert [(prompt.id, prompt.messages[0]["content"]) for prompt in found.prompts] == [
        ("file.jsonl:1", "why?"),
        ("file.jsonl:2", "when?"),
    ]
    assert (found.repeated, found.report.kept, found.report.lost) == (1, 2, 0)
    assert found.lengths == [len(encode_prompt(renderer, each.messages, {})) for each in found.prompts]


def test_files_of_one_name_have_prompts_of_their_own_names(renderer: Renderer) -> None:
    found = collect_prompts([record("why?"), record("when?", "b/file.jsonl:1")], renderer, 100)
    assert [prompt.id for prompt in found.prompts] == ["file.jsonl:1", "file.jsonl:1#2"]


def test_a_prompt_with_other_tools_is_another_prompt(tmp_path: Path) -> None:
    renderer = Renderer(load_tokenizer(tiny.base_with_tools(tmp_path)), Reading())
    found = collect_prompts([record("why?"), record("why?", "f:2", tools=(TOOL,))], renderer, 200)
    assert [prompt.template_arguments for prompt in found.prompts] == [{}, {"tools": [TOOL]}]
    assert found.lengths[1] > found.lengths[0]


def test_prompts_that_are_too_long_or_not_rendered_are_counted(renderer: Renderer) -> None:
    short = record("why?")
    longest = len(encode_prompt(renderer, short.prompt, {}))
    found = collect_prompts([short, record("why? why?", "f:2"), record("x", "f:3", tools=(TOOL,))], renderer, longest)
    assert [prompt.id for prompt in found.prompts] == ["file.jsonl:1"]
    assert found.report.counts["left_out"] == {TOO_LONG: 1, UNREADABLE: 1}


def test_too_many_prompts_that_are_left_out_end_the_run(renderer: Renderer) -> None:
    records = [record("why?"), record("w" * 100, "f:2")]
    found = collect_prompts(records, renderer, 30)
    check_prompts(found, 0.5)
    with pytest.raises(RecipeError, match=r"1 of 2 prompts are left out \(1 longer than sampling.max_prompt\)"):
        check_prompts(found, 0.4)
    with pytest.raises(RecipeError, match="no prompt is left to answer: 2 longer than sampling.max_prompt"):
        check_prompts(collect_prompts(records, renderer, 3), 1.0)


def test_all_prompts_of_a_round_stand_the_longest_first() -> None:
    found = numbered(12)
    drawn = draw_prompts(found, 1, None, 0)
    lengths = dict(zip([prompt.id for prompt in found.prompts], found.lengths, strict=True))
    assert [lengths[prompt.id] for prompt in drawn] == sorted(found.lengths, reverse=True)
    assert draw_prompts(found, 2, 12, 0) == draw_prompts(found, 1, 99, 0) == drawn


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_no_prompt_is_drawn_again_before_all_others(count: int, size: int, rounds: int, seed: int) -> None:
    found, drawn = numbered(count), Counter[str]()
    for number in range(1, rounds + 1):
        chosen = [prompt.id for prompt in draw_prompts(found, number, size, seed)]
        assert len(set(chosen)) == len(chosen) == min(size, count)
        drawn.update(chosen)
        times = [drawn[prompt.id] for prompt in found.prompts]
        assert max(times) - min(times) <= 1


def test_rounds_and_seeds_draw_other_prompts() -> None:
    found = numbered(40)
    first = draw_prompts(found, 1, 20, 0)
    assert first == draw_prompts(found, 1, 20, 0)
    assert not {prompt.id for prompt in first} & {prompt.id for prompt in draw_prompts(found, 2, 20, 0)}
    assert first != draw_prompts(found, 1, 20, 1)
