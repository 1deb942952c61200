"""The bytes of texts are bounded before a template or a tokenizer sees them: counted, not timed."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from serve.border import served
from serve.counting import RENDERER, CountingEngine

from tureen.errors import PayloadTooLarge
from tureen_core.chat_template import TemplateInputs
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.score import plan_score, score_each
from tureen_serve.inference.pieces import AbandonedError
from tureen_serve.inference.rendering import AnswerPair, FinishedText, Group, Steps, render_answers
from tureen_serve.inference.text_limits import FRAME, TextLimits, check_conversation, measure_input, take_inputs
from tureen_serve.telemetry import Metrics

ASKED = [{"role": "user", "content": "hi"}]
SAID = len("user") + len("hi") + FRAME


def answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def said(text: str) -> int:
    return len("assistant") + len(text.encode()) + FRAME


def test_each_answer_counts_with_its_prompt_and_what_the_template_is_given() -> None:
    beside = TemplateInputs([{"name": "f"}], {"x": True})
    group = Group([answer("calm"), answer("ü")], ASKED, beside=beside)
    assert measure_input(group) == [SAID + 7 + said("calm"), SAID + 7 + said("ü")]
    assert measure_input(FinishedText("ü")) == [2]
    assert measure_input(FinishedText([1, 2, 3])) == [3]
    assert measure_input(Steps(ASKED, ["one", "two"])) == [SAID + 6]
    assert measure_input(AnswerPair(ASKED, answer("a"), answer("b"))) == [SAID + said("a") + said("b")]
    calls = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert measure_input(Group([[calls]])) == [FRAME + len("assistant") + 1 + len("function") + len("name") + 1]


def test_inputs_are_taken_only_until_they_are_too_large() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[FinishedText]:
        for number in range(1000):
            taken.append(number)
            yield FinishedText("x" * 10)

    assert len(take_inputs([FinishedText("x" * 10)] * 3, TextLimits(request_bytes=30))) == 3
    with pytest.raises(PayloadTooLarge, match="more than 35 bytes .`limits.request_bytes`") as caught:
        take_inputs(inputs(), TextLimits(request_bytes=35))
    assert (taken, caught.value.code) == ([0, 1, 2, 3], "request_too_large")


def test_a_conversation_is_one_text() -> None:
    check_conversation(ASKED * 3, TextLimits(text_bytes=SAID * 3), "messages")
    with pytest.raises(PayloadTooLarge, match=f"has {SAID * 4} bytes") as caught:
        check_conversation(ASKED * 4, TextLimits(text_bytes=SAID * 3), "messages")
    assert caught.value.param == "messages"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all texts that were given to the tokenizer."""
    lengths: list[int] = []
    read = Renderer._read

    def counted(self: Renderer, text: str, border: int, specials: bool = True) -> tuple[list[int], int]:
        lengths.append(len(text))
        return read(self, text, border, specials)

    monkeypatch.setattr(Renderer, "_read", counted)
    return lengths


LIMITS = TextLimits(text_bytes=200)


@pytest.mark.parametrize(
    ("given", "params"),
    [
        (Group([answer("a" * 200), answer("b" * 200)], ASKED), ["candidates[0]", "candidates[1]"]),
        (Group([answer("a" * 200)]), ["messages"]),
        (FinishedText("a" * 201), [None]),
        (Steps(ASKED, ["a" * 100, "b" * 100]), ["steps", "steps"]),
        (AnswerPair(ASKED, answer("a" * 90), answer("b" * 90)), ["candidates"]),
    ],
)
def test_a_text_that_is_too_large_is_never_rendered(given: Any, params: list[str | None], written: list[int]) -> None:
    found = render_answers(RENDERER, given, truncate=True, limits=LIMITS)
    errors = [each for each in found if isinstance(each, PayloadTooLarge)]
    assert [each.param for each in errors] == params
    assert {each.code for each in errors} == {"text_too_large"}
    assert written == []


def test_a_prompt_without_answers_has_no_texts() -> None:
    assert render_answers(RENDERER, Group([], ASKED), truncate=False) == []


def test_the_other_answers_of_a_prompt_are_rendered_with_their_own_errors(written: list[int]) -> None:
    bad = [{"role": "user", "content": "no answer"}]
    group = Group([answer("a" * 200), answer("calm"), bad], ASKED)
    large, good, wrong = render_answers(RENDERER, group, truncate=False, limits=LIMITS)
    assert isinstance(large, PayloadTooLarge)
    (alone,) = render_answers(RENDERER, Group([answer("calm")], ASKED), truncate=False)
    assert isinstance(good, Rendered)
    assert good == alone
    assert getattr(wrong, "param", None) == "candidates[2]"
    assert max(written) < 200


def test_rendering_ends_between_two_answers_when_nobody_waits(written: list[int]) -> None:
    group = Group([answer("calm")] * 100, ASKED)

    def go_on() -> None:
        if len(written) >= 3:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        render_answers(RENDERER, group, truncate=False, go_on=go_on)
    assert len(written) == 3


@pytest.mark.parametrize("kind", [ScoreBody, PreferencesBody])
def test_a_prompt_counts_with_each_of_its_answers_before_the_engine_is_asked(kind: Any) -> None:
    engine = CountingEngine()
    engine.limits = TextLimits(request_bytes=20_000)
    document = {"items": [{"prompt": "x" * 1000, "candidates": ["calm"] * 20}]}
    small = {"items": [{"prompt": "hi", "candidates": ["calm", "b"]}]}
    bodies = [ScoreBody.model_validate(each) for each in (document, small)]
    refused, scored = asyncio.run(score_each(engine, Metrics(), bodies))
    assert isinstance(refused, PayloadTooLarge)
    assert not isinstance(scored, Exception)
    assert [len(groups) for groups, _ in engine.calls] == [1]
    assert plan_score(bodies[0], engine.rewards).inputs


LARGE: dict[str, tuple[str, Any]] = {
    "score": ("/v1/score", {"items": [{"prompt": "x" * 1000, "candidates": ["calm"] * 20}]}),
    "labels": ("/v1/preferences", {"items": [{"prompt": "x" * 1000, "candidates": ["calm"] * 20}]}),
    "pairs": ("/v1/preferences", {"items": [{"prompt": "x", "candidates": ["calm " * 100] * 9}], "rewards": ["duel"]}),
    "vllm": ("/score", {"queries": "x" * 1000, "documents": ["calm"] * 20}),
    "ranks": ("/rerank", {"query": "x" * 1000, "documents": ["calm"] * 20}),
    "openrlhf": ("/get_reward", {"query": ["x" * 1000] * 21}),
    "tei": ("/tei/rerank", {"query": "x" * 1000, "texts": ["calm"] * 20}),
    "sglang": ("/sglang/v1/score", {"query": "x" * 1000, "items": ["calm"] * 20}),
    "llamafactory": ("/llamafactory/v1/score/evaluation", {"model": "calm", "messages": ["x" * 1000] * 21}),
    "infinity": ("/infinity/rerank", {"query": "x" * 1000, "documents": ["calm"] * 20}),
}


@pytest.mark.parametrize("case", LARGE)
def test_every_route_bounds_the_texts_of_a_request_before_the_engine_is_asked(case: str) -> None:
    engine = CountingEngine("calm", "duel") if case == "pairs" else CountingEngine()
    engine.limits = TextLimits(request_bytes=20_000)
    path, body = LARGE[case]
    with served(engine, aliases={"default": "calm"}) as client:
        reply = client.post(path, json=body)
    assert reply.status_code == 413
    assert "more than 20000 bytes (`limits.request_bytes`)" in reply.text
    assert engine.calls == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": ASKED * 20}), ("/tokenize", {"messages": ASKED * 20})],
)
def test_a_long_conversation_of_short_messages_is_refused_before_it_is_rendered(
    path: str, body: Any, written: list[int]
) -> None:
    engine = CountingEngine()
    engine.limits = TextLimits(text_bytes=SAID * 19)
    with served(engine, aliases={"default": "calm"}) as client:
        reply = client.post(path, json=body)
    assert reply.status_code == 413
    assert f"has {SAID * 20} bytes" in reply.text
    assert written == []
