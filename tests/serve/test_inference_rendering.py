"""Groups to ids, and errors in place of the answers that cannot be read."""

from typing import Any

import pytest
import tiny

from tureen.errors import TureenError, Unavailable, Unprocessable
from tureen_core.reading import Cut, Reading, Rendered
from tureen_core.template import Renderer
from tureen_serve.inference.rendering import AnswerPair, FinishedText, Group, Steps, relocate_error, render_answers

RENDERER = Renderer(tiny.tokenizer(), Reading(max_length=48))
ASK = [{"role": "user", "content": "why?"}]


def answer(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def fault(found: Rendered | TureenError) -> tuple[str | None, str | None]:
    assert isinstance(found, Unprocessable)
    return found.param, found.code


def test_answers_share_their_prompt() -> None:
    found = render_answers(RENDERER, Group([answer("a"), answer("the dog")], ASK), truncate=False)
    prefix = RENDERER.tokenize_prompt(ASK)
    for each, text in zip(found, ("a", "the dog"), strict=True):
        assert isinstance(each, Rendered)
        assert each.shared == len(prefix)
        assert each.ids == RENDERER.render_conversation([*ASK, *answer(text)]).ids


def test_a_group_without_prompt_is_a_finished_conversation() -> None:
    (found,) = render_answers(RENDERER, Group([[*ASK, *answer("a")]]), truncate=False)
    assert found == RENDERER.render_conversation([*ASK, *answer("a")])


def test_a_bad_answer_leaves_the_others() -> None:
    answers = [answer("a"), answer("x" * 200), answer("b", role="user"), answer("c", role="judge"), []]
    found = render_answers(RENDERER, Group(answers, ASK), truncate=False)
    assert isinstance(found[0], Rendered)
    assert [fault(each) for each in found[1:]] == [
        ("candidates[1]", "context_length_exceeded"),
        ("candidates[2]", "invalid_value"),
        ("candidates[3]", "invalid_value"),
        ("candidates[4]", "invalid_value"),
    ]


def test_a_long_answer_is_cut_when_asked() -> None:
    (found,) = render_answers(RENDERER, Group([answer("x" * 200)], ASK), truncate=True)
    assert isinstance(found, Rendered)
    assert (len(found.ids), found.shared, found.truncated) == (48, 0, True)


def test_a_bad_prompt_is_the_fault_of_every_answer() -> None:
    late = [*ASK, {"role": "system", "content": "late"}]
    found = render_answers(RENDERER, Group([answer("a"), answer("b")], late), truncate=False)
    assert [fault(each) for each in found] == [("prompt", "invalid_value")] * 2


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (ASK, "messages[0].role"),
        ([{"role": "judge", "content": "x"}], "messages[0].role"),
        ([*ASK, {"role": "assistant", "content": "\ud800"}], "messages[1].content"),
        ([*ASK, {"role": "assistant", "content": "x" * 200}], "messages"),
        ([], "messages"),
    ],
)
def test_a_bad_conversation_names_its_message(messages: Any, param: str) -> None:
    (found,) = render_answers(RENDERER, Group([messages]), truncate=False)
    assert fault(found)[0] == param


def test_a_finished_text_meets_no_template() -> None:
    talk = [*ASK, *answer("a")]
    text = RENDERER.tokenizer.apply_chat_template(talk, tokenize=False)
    assert render_answers(RENDERER, FinishedText(text), truncate=False) == [RENDERER.render_conversation(talk)]
    (bare,) = render_answers(RENDERER, FinishedText("why?", specials=False), truncate=False)
    assert isinstance(bare, Rendered)
    assert bare.ids == RENDERER.tokenizer("why?", add_special_tokens=False)["input_ids"]
    assert render_answers(RENDERER, FinishedText(bare.ids), truncate=False) == [Rendered(bare.ids)]


def test_a_finished_text_is_cut_as_it_asks_or_as_the_call_does() -> None:
    long = "the fox " * 40
    (refused,) = render_answers(RENDERER, FinishedText(long), truncate=False)
    assert fault(refused) == (None, "context_length_exceeded")
    for given, truncate, length in ((FinishedText(long), True, 48), (FinishedText(long, cut=Cut(7)), False, 7)):
        (found,) = render_answers(RENDERER, given, truncate)
        assert isinstance(found, Rendered)
        assert (len(found.ids), found.truncated) == (length, True)
    (strange,) = render_answers(RENDERER, FinishedText([10**7]), truncate=True)
    assert fault(strange) == (None, "invalid_token_ids")


@pytest.mark.parametrize("prompt", [[], ASK])
def test_a_group_is_cut_as_it_asks(prompt: list[dict[str, str]]) -> None:
    long = [*([] if prompt else ASK), *answer("the fox " * 40)]
    for cut, length in ((Cut(), 48), (Cut(7), 7), (Cut(7, "right"), 7), (Cut(500), 48)):
        (found,) = render_answers(RENDERER, Group([long], prompt, cut), truncate=False)
        assert isinstance(found, Rendered)
        assert (len(found.ids), found.shared, found.truncated) == (length, 0, True)
        assert found.ids[-1] == RENDERER.tokenizer.eos_token_id
    (refused,) = render_answers(RENDERER, Group([long], prompt), truncate=False)
    assert fault(refused)[1] == "context_length_exceeded"


def test_a_bad_answer_leaves_the_others_to_be_cut() -> None:
    found = render_answers(
        RENDERER, Group([answer("the fox " * 40), answer("b", role="judge")], ASK, Cut(7)), truncate=False
    )
    assert isinstance(found[0], Rendered)
    assert len(found[0].ids) == 7
    assert fault(found[1]) == ("candidates[1]", "invalid_value")


@pytest.mark.parametrize("given", [FinishedText("", specials=False), FinishedText([])])
def test_a_text_of_no_tokens_is_an_error(given: FinishedText) -> None:
    (found,) = render_answers(RENDERER, given, truncate=True)
    assert fault(found) == (None, "invalid_token_ids")


# --------------------------------------------------------------------------- steps and pairs


def test_a_step_is_the_answer_up_to_its_end() -> None:
    found = render_answers(RENDERER, Steps(ASK, ["the dog", "a"]), truncate=False)
    first, second = (each.ids for each in found if isinstance(each, Rendered))
    assert second[: len(first)] == first
    assert first[: len(RENDERER.tokenize_prompt(ASK))] == RENDERER.tokenize_prompt(ASK)


def test_steps_that_cannot_be_read_are_named() -> None:
    found = render_answers(RENDERER, Steps(ASK, ["a", " "]), truncate=False)
    assert [fault(each)[0] for each in found] == ["steps[1]"] * 2
    alone = render_answers(RENDERER, Steps(ASK, ["x" * 200]), truncate=True)
    assert fault(alone[0]) == ("steps", "steps_too_long")
    assert fault(render_answers(RENDERER, Steps(answer("x", role="judge"), ["a"]), truncate=False)[0])[0] == "prompt"


def test_of_a_pair_the_answer_at_fault_is_named() -> None:
    bad = render_answers(RENDERER, AnswerPair(ASK, answer("a"), answer("b", role="user"), (4, 2)), truncate=False)
    assert fault(bad[0])[0] == "candidates[2]"
    late = [*ASK, {"role": "system", "content": "be brief"}]
    assert fault(render_answers(RENDERER, AnswerPair(late, answer("a"), answer("b")), truncate=False)[0])[0] == "prompt"
    long = render_answers(RENDERER, AnswerPair(ASK, answer("x" * 200), answer("b")), truncate=False)
    assert fault(long[0]) == ("candidates", "context_length_exceeded")


def test_a_relocated_error_is_the_same_but_for_its_field() -> None:
    error = Unavailable("full", param="candidates[0]", code="queue_full", retry_after=3)
    found = relocate_error(error, "texts[1]")
    assert type(found) is Unavailable
    assert (found.message, found.param, found.code, found.retry_after) == ("full", "texts[1]", "queue_full", 3)
    assert relocate_error(error, "").param is None


@pytest.mark.parametrize("index", [0, 1])
def test_what_a_pairs_text_has_no_place_for_is_named_by_its_candidate(index: int) -> None:
    renderer = Renderer(tiny.tokenizer(), Reading(max_length=400))
    call = {"function": {"name": "f", "arguments": "{}"}}
    called: dict[str, Any] = {"role": "assistant", "content": "x", "tool_calls": [call]}
    answers: list[list[dict[str, Any]]] = [answer("a"), answer("b")]
    (found,) = render_answers(renderer, AnswerPair([*ASK, called], answers[0], answers[1]), truncate=False)
    assert fault(found) == ("prompt[1].tool_calls", "unsupported_by_template")
    answers[index] = [called, *answer("c")]
    (found,) = render_answers(renderer, AnswerPair(ASK, answers[0], answers[1], (4, 7)), truncate=False)
    assert fault(found) == (f"candidates[{(4, 7)[index]}][0].tool_calls", "unsupported_by_template")
