"""No route or dialect writes a number that is not finite, nor null in its place: there is an error that says so."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.route_bodies import SCORING, WRITING, about
from starlette.testclient import TestClient

from tureen.errors import ServerFault
from tureen.wire import CandidateScore, Score
from tureen_core.calibration import Calibration
from tureen_serve.api.chat_shape import ChatReplyShape
from tureen_serve.api.completion_replies import CompletionReplyShape
from tureen_serve.api.json_replies import write_json
from tureen_serve.batches.endpoints import LineAnswer
from tureen_serve.batches.results import build_result
from tureen_serve.faults import translate_error
from tureen_serve.generation.weigh import LARGEST, find_unusable_reward
from tureen_serve.runtimes.contract import TextDelta, TokenLogprob

STEEP = Calibration(std=1e-308)  # it makes 1e308 of 1
ITEMS = [{"prompt": "q", "candidates": [answer]} for answer in ("funny", "calm", "funny funny")]


def engine(scale: Calibration) -> CountingEngine:
    found = CountingEngine()
    found.rewards = {**found.rewards, "calm": replace(found.rewards["calm"], calibration=scale)}
    return found


@pytest.fixture(scope="module")
def plain() -> Iterator[TestClient]:
    with served(engine(Calibration()), aliases={"default": "calm"}) as client:
        yield client


@pytest.fixture(scope="module")
def steep() -> Iterator[TestClient]:
    with served(engine(STEEP), aliases={"default": "calm"}) as client:
        yield client


def check_fault(reply: Any) -> None:
    assert reply.status_code in (500, 424), reply.text  # TEI has 424
    assert "finite" in reply.text
    assert "NaN" not in reply.text
    assert "Infinity" not in reply.text


@pytest.mark.parametrize("path", SCORING)
def test_an_infinite_reward_is_an_error(plain: TestClient, path: str) -> None:
    assert plain.post(path, json=SCORING[path]).status_code == 200
    check_fault(plain.post(path, json=about(SCORING[path], "boundless")))


@pytest.mark.parametrize("path", SCORING)
def test_a_calibrated_reward_that_overflows_is_an_error(steep: TestClient, path: str) -> None:
    check_fault(steep.post(path, json=SCORING[path]))


@pytest.mark.parametrize("path", WRITING)
def test_candidates_whose_reward_overflows_are_not_chosen(steep: TestClient, path: str) -> None:
    body = {**WRITING[path], "preferences": {"calm": 1}, "candidates": {"n": 2, "preferences": {"calm": 1}}}
    check_fault(steep.post(path, json=body))


@pytest.mark.parametrize("path", ["/v1/score", "/v1/preferences"])
def test_the_neighbours_have_their_scores(steep: TestClient, path: str) -> None:
    items = [{**each, "candidates": [*each["candidates"], "funny"]} for each in ITEMS]
    body = {"items": items, "on_error": "item", "preferences": {"funny": 1}, "rewards": ["calm", "funny"]}
    reply = steep.post(path, json=body)
    assert reply.status_code == 200, reply.text
    first, second, third = (each["candidates"] for each in reply.json()["data"])
    assert [each["scores"]["funny"]["raw"] for each in (*first, *third)] == [1, 1, 2, 1]
    assert (second[0]["scores"], second[0]["error"]["code"]) == (None, "non_finite_score")
    assert second[1]["scores"]["funny"]["raw"] == 1


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf, 2 * LARGEST])
def test_a_number_beyond_float32_is_unusable(raw: float) -> None:
    assert find_unusable_reward({"a": 1.0, "b": raw}, {"a": None, "b": Calibration(std=10)}) == "b"
    assert find_unusable_reward({"a": 1.0, "b": LARGEST}, {"a": None, "b": Calibration(std=1)}) is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_writer_takes_it(number: float) -> None:
    with pytest.raises(ServerFault) as caught:
        write_json({"score": [number]})
    assert caught.value.code == "non_finite_number"
    with pytest.raises(ValueError, match="finite") as refused:
        CandidateScore(index=0, reward=number, scores={"calm": Score(raw=1)})
    assert translate_error(refused.value).code == "non_finite_number"
    made = build_result(["a", "b"], [LineAnswer(200, {"score": number}), LineAnswer(200, {"score": 1.0})])
    assert (made.tally.failed, made.tally.completed) == (1, 1)
    assert json.loads(made.bad)["response"]["body"]["error"]["code"] == "non_finite_number"


@pytest.mark.parametrize("shape", [ChatReplyShape(), CompletionReplyShape()])
def test_only_the_logarithm_of_0_is_written_as_openai_does(shape: Any) -> None:
    text = json.dumps(shape.deltas(0, TextDelta("a", 1, (TokenLogprob("a", 1, -math.inf),)), 0))
    assert "-9999.0" in text
    for number in (math.nan, math.inf):
        for logprob in (TokenLogprob("a", 1, number), TokenLogprob("a", 1, 0.0, (("b", 2, number),))):
            with pytest.raises(ServerFault) as caught:
                shape.deltas(0, TextDelta("a", 1, (logprob,)), 0)
            assert caught.value.code == "non_finite_logits"
