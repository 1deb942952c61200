"""What each kind of reward model reads: RLHFlow's text of a pair, cut without losing its frame; steps as prefixes."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen_core.inputs import render_pair, render_probe, render_steps, split_rivals, write_pair_messages
from tureen_core.manifest import Probe
from tureen_core.reading import Reading
from tureen_core.template import Renderer

PUBLISHED = (  # pair-pm/process_pair_data.py
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
PROMPT = [
    {"role": "user", "content": "why do leaves fall?"},
    {"role": "assistant", "content": "the days grow short"},
    {"role": "user", "content": "and in autumn?"},
]
FOX, DOG = ([{"role": "assistant", "content": text}] for text in ("the quick brown fox", "the lazy dog"))


def renderer(**reading: Any) -> Renderer:
    return Renderer(tiny.tokenizer(), Reading(**{"max_length": 512, "eos": "none", **reading}))


def text(render: Renderer, ids: list[int]) -> str:
    decoded: str = render.tokenizer.decode(ids)
    return decoded


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


# --------------------------------------------------------------------------- steps


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5))
def test_fewer_steps_are_a_prefix_of_more(texts: list[str]) -> None:
    render = renderer()
    whole = render_steps(render, PROMPT, texts)
    assert whole.ids[: whole.shared] == render.tokenize_prompt(PROMPT)
    for count in range(1, len(texts) + 1):
        part = render_steps(render, PROMPT, texts[:count])
        assert part.ids == whole.ids[: whole.ends[count - 1]] == whole.prefixes[count - 1].ids
        assert part.ends == whole.ends[:count]


def test_each_step_ends_with_its_break_and_nothing_is_appended() -> None:
    render = renderer()
    read = render_steps(render, PROMPT, ["one", "two"])
    assert text(render, read.ids).endswith("<|im_start|>assistant\none\n\ntwo\n\n")
    assert [text(render, read.ids[:end])[-5:] for end in read.ends] == ["one\n\n", "two\n\n"]
    assert read.whole.ids == read.ids


def test_a_long_prompt_loses_its_beginning_and_steps_stay_whole() -> None:
    whole, render = render_steps(renderer(), PROMPT, ["one", "two"]), renderer(max_length=40)
    read = render_steps(render, PROMPT, ["one", "two"])
    assert read.truncated
    assert read.shared == read.ends[0] - (whole.ends[0] - whole.shared)
    assert read.ids == whole.ids[-40:]
    assert [len(whole.ids) - end for end in whole.ends] == [len(read.ids) - end for end in read.ends]
    with pytest.raises(Unprocessable, match="have .* tokens and this model reads 40"):
        render_steps(render, PROMPT, ["one", "two"], truncate=False)
    with pytest.raises(Unprocessable, match="this model reads 40; send fewer") as caught:
        render_steps(render, PROMPT, ["one" * 60])
    assert (caught.value.param, caught.value.code) == ("steps", "steps_too_long")


@pytest.mark.parametrize(("texts", "param"), [([], "steps"), (["x", " "], r"steps[1]"), (["\ud800"], "steps[0]")])
def test_what_is_no_step_is_named(texts: list[str], param: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        render_steps(renderer(), PROMPT, texts)
    assert caught.value.param == param


# --------------------------------------------------------------------------- probes


def test_a_probe_is_read_as_its_kind_is(base: Path) -> None:
    render = Renderer(tiny.tokenizer(), tiny.reading(base, eos="none"))
    rival = Probe(messages=[*PROMPT, *FOX], rival=[*PROMPT, *DOG])
    assert render_probe(render, "pair", rival) == render_pair(render, PROMPT, FOX, DOG)
    stepped = Probe(messages=[*PROMPT, {"role": "assistant", "content": "one\n\ntwo"}])
    assert render_probe(render, "steps", stepped).ids == render_steps(render, PROMPT, ["one", "two"]).ids
    assert render_probe(render, "conversation", stepped) == render.render_conversation(stepped.messages)


# --------------------------------------------------------------------------- steps as turns


def marked(**changes: Any) -> Renderer:
    return renderer(step_mark="+", **changes)


def test_steps_with_marks_are_the_turns_of_the_published_code() -> None:
    """The question with the first step, its mark, the second step, and where its mark would be written."""
    render = marked()
    asked = PROMPT[-1]["content"]
    turns = [("user", f"{asked} one"), ("assistant", "+"), ("user", "two"), ("assistant", "-"), ("user", "three")]
    whole = [*PROMPT[:-1], *({"role": role, "content": said} for role, said in turns)]
    read = render_steps(render, PROMPT, ["one", "two", "three"], marks=["+", "-", "+"])
    assert read.ids == render.tokenize_prompt(whole)
    assert [read.ids[:end] for end in read.ends] == [
        render.tokenize_prompt(whole[: len(whole) - cut]) for cut in (4, 2, 0)
    ]
    assert text(render, read.ids[: read.shared]).endswith(asked)
    served = render_steps(render, PROMPT, ["one", "two", "three"])
    assert served.ids == render_steps(render, PROMPT, ["one", "two", "three"], marks=["+"] * 3).ids != read.ids


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=4))
def test_fewer_marked_steps_are_a_prefix_of_more(texts: list[str]) -> None:
    whole = render_steps(marked(), PROMPT, texts)
    for count in range(1, len(texts) + 1):
        assert render_steps(marked(), PROMPT, texts[:count]).ids == whole.ids[: whole.ends[count - 1]]


def test_a_long_question_loses_its_beginning_and_marked_steps_stay_whole() -> None:
    whole = render_steps(marked(), PROMPT, ["one", "two"])
    short = len(whole.ids) - 3
    read = render_steps(marked(max_length=short), PROMPT, ["one", "two"])
    assert read.truncated
    assert read.ids == whole.ids[-short:]
