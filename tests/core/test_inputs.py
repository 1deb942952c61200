"""What each kind of reward model reads: probes by their kind, with their tools; steps as prefixes."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from core.rendered_texts import DOG, FOX, PROMPT, renderer, text
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen_core.chat_template import make_template_inputs
from tureen_core.inputs import render_expert_probe, render_probe, render_steps
from tureen_core.manifest import Probe
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Reading
from tureen_core.template import Renderer

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


def test_a_probes_tools_and_arguments_are_rendered() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TOOLS
    render = Renderer(tokenizer, Reading(max_length=512))
    beside: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    beside["chat_template_kwargs"] = {"enable_thinking": False}
    probe = Probe(messages=[*PROMPT, *FOX], **beside)
    inputs = make_template_inputs(beside)
    assert render_probe(render, "conversation", probe) == render.render_conversation(probe.messages, inputs=inputs)
    stepped = Probe(messages=[*PROMPT, {"role": "assistant", "content": "one\n\ntwo"}], **beside)
    assert render_probe(render, "steps", stepped).ids == render_steps(render, PROMPT, ["one", "two"], inputs=inputs).ids
    with pytest.raises(Unprocessable, match="`tools`"):
        render_probe(render, "pair", Probe(messages=[*PROMPT, *FOX], rival=[*PROMPT, *DOG], **beside))
    ids, before = render_expert_probe(render, probe)
    assert ids == render.render_conversation(probe.messages, inputs=inputs).ids
    assert before == len(render.tokenize_prompt(PROMPT, inputs))


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
