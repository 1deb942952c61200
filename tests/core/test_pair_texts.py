"""RLHFlow's text of a pair: as published, cut without losing its frame, and without a place for tools."""

from typing import Any

import pytest
import tiny
from core.rendered_texts import DOG, FOX, PROMPT, renderer, text

from tureen.errors import Unprocessable
from tureen_core.chat_template import UNSUPPORTED, TemplateInputs
from tureen_core.pair_texts import render_pair, split_rivals, write_pair_messages

PUBLISHED = (  # pair-pm/process_pair_data.py
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
# --------------------------------------------------------------------------- a pair's text


@pytest.mark.parametrize("turns", [1, 3])
def test_a_pair_is_written_as_published(turns: int) -> None:
    plain = tiny.tokenizer()
    plain.chat_template = PUBLISHED
    context = plain.apply_chat_template(PROMPT[:turns], tokenize=False)
    expected = f"[CONTEXT] {context} [RESPONSE A] the quick brown fox [RESPONSE B] the lazy dog \n"
    assert write_pair_messages(PROMPT[:turns], FOX, DOG) == [{"role": "user", "content": expected}]


def test_the_generation_prompt_ends_it_and_no_eos_does() -> None:
    render = renderer()
    read = render_pair(render, PROMPT, FOX, DOG)
    assert read.ids == render.tokenize_prompt(write_pair_messages(PROMPT, FOX, DOG))
    assert text(render, read.ids).endswith("the lazy dog \n<|im_end|>\n<|im_start|>assistant\n")
    assert not read.truncated


def test_what_stands_before_the_first_answer_is_shared_by_all_pairs_of_a_prompt() -> None:
    render = renderer()
    one, other = render_pair(render, PROMPT, FOX, DOG), render_pair(render, PROMPT, DOG, FOX)
    assert one.shared == other.shared > 0
    assert one.ids[: one.shared] == other.ids[: other.shared]
    assert text(render, one.ids[: one.shared]).endswith("[RESPONSE A]")  # the space belongs to the answer's first token


def test_answers_of_several_turns_are_written_as_turns() -> None:
    longer = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}, *FOX]
    content = write_pair_messages([], longer, DOG)[0]["content"]
    turns = "\n<turn> assistant\n x\n<turn> user\n y\n<turn> assistant\n the quick brown fox"
    assert content == f"[CONTEXT] \n\n [RESPONSE A] {turns} [RESPONSE B] the lazy dog \n"


@pytest.mark.parametrize(
    ("prompt", "first", "words"),
    [
        ([{"role": "human", "content": "x"}], FOX, "unknown role"),
        (PROMPT, PROMPT[:1], "must be the assistant's"),
        (PROMPT, [], "at least one message"),
    ],
)
def test_what_is_no_pair_is_refused(prompt: Any, first: Any, words: str) -> None:
    with pytest.raises(Unprocessable, match=words):
        render_pair(renderer(), prompt, first, DOG)


CALL = {"function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("turns", "inputs", "param"),
    [
        ({}, TemplateInputs([{"type": "function", "function": {"name": "f"}}]), "tools"),
        ({}, TemplateInputs(arguments={"enable_thinking": False}), "chat_template_kwargs"),
        (
            {"prompt": [*PROMPT, {"role": "assistant", "content": "x", "tool_calls": [CALL]}]},
            None,
            "prompt[3].tool_calls",
        ),
        ({"first": [{**FOX[0], "reasoning_content": "hm"}]}, None, "first[0].reasoning_content"),
        ({"second": [{**DOG[0], "tool_calls": [CALL]}, *DOG]}, None, "second[0].tool_calls"),
    ],
)
def test_a_pair_has_no_place_for_tools_calls_arguments_and_thoughts(
    turns: dict[str, Any], inputs: TemplateInputs | None, param: str
) -> None:
    given = {"prompt": PROMPT, "first": FOX, "second": DOG, **turns}
    with pytest.raises(Unprocessable, match="the text of a pair has no place for") as caught:
        render_pair(renderer(), **given, inputs=inputs or TemplateInputs())
    assert (caught.value.param, caught.value.code) == (param, UNSUPPORTED)
    assert f"`{param.rpartition('.')[2]}`" in caught.value.message


def test_rivals_share_their_turns_but_for_the_last() -> None:
    assert split_rivals([*PROMPT, *FOX], [*PROMPT, *DOG]) == (PROMPT, FOX, DOG)
    assert split_rivals([*PROMPT, *FOX], [*PROMPT, *FOX]) == (PROMPT, FOX, FOX)
    assert split_rivals([*PROMPT, *FOX], [PROMPT[0], *DOG]) == (PROMPT[:1], [*PROMPT[1:], *FOX], DOG)
    other = [{"role": "user", "content": "?"}, *DOG]
    assert split_rivals([*PROMPT, *FOX], other) == ([], [*PROMPT, *FOX], other)


# --------------------------------------------------------------------------- a pair that is too long


@pytest.mark.parametrize("limit", [90, 100, 120, 150])
def test_a_long_context_loses_its_beginning_and_the_answers_stay(limit: int) -> None:
    long = [{"role": "user", "content": f"{'x' * 400}. why do leaves fall?"}]
    render = renderer(max_length=limit)
    read = render_pair(render, long, FOX, DOG)
    assert read.truncated
    assert limit - 4 <= len(read.ids) <= limit
    assert text(render, read.ids).startswith("<|im_start|>user\n[CONTEXT] ")
    assert text(render, read.ids).endswith(
        "[RESPONSE A] the quick brown fox [RESPONSE B] the lazy dog \n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_answers_that_are_too_long_lose_their_ends_alike() -> None:
    first, second = ([{"role": "assistant", "content": letter * 300}] for letter in "xy")
    render = renderer(max_length=120)
    read = render_pair(render, PROMPT, first, second)
    content = text(render, read.ids)
    assert read.truncated
    assert len(read.ids) <= 120
    assert content.count("x") == content.count("y") > 10
    assert content.endswith("y \n<|im_end|>\n<|im_start|>assistant\n")
    assert "[CONTEXT]  [RESPONSE A] x" in content


def test_a_long_pair_is_refused_where_it_may_not_be_cut_or_nothing_fits() -> None:
    with pytest.raises(Unprocessable, match="this model reads 60; shorten it") as caught:
        render_pair(renderer(max_length=60), PROMPT, FOX, DOG, truncate=False)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(Unprocessable, match="frame of a pair alone"):
        render_pair(renderer(max_length=8), PROMPT, FOX, DOG)
