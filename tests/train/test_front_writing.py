"""What a method's requests say, and which of its answers is taken."""

from collections.abc import Iterator
from typing import Any

import pytest
from serve.border import listening
from serve.counting import CountingEngine

from tureen import Client
from tureen.errors import ServerFault
from tureen.openai_wire import ChatChoice
from tureen_train.config.fronts import FrontSampling, MethodPart
from tureen_train.front.answers import WrittenAnswer
from tureen_train.front.grids import EVERYWHERE, Weights, plan_grid
from tureen_train.front.writing import (
    choose_candidate,
    list_points,
    say_sentences,
    take_only,
    write_answers,
)
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.server_sampler import make_seed

GRID = plan_grid(["calm", "funny"], steps=4)
PROMPTS = [Prompt(f"p{number}", ({"role": "user", "content": f"Why {number}?"},)) for number in range(3)]
MIX = "words:calm=0.5+funny=0.5"
SAMPLING = FrontSampling(max_tokens=12, temperature=1.0, concurrency=2)


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def url(engine: CountingEngine) -> Iterator[str]:
    with listening(engine) as address:
        yield address


def method(**keys: Any) -> MethodPart:
    return MethodPart.model_validate({"name": "own", "server": "own", "model": "words", **keys})


def write(part: MethodPart, url: str, points: list[str]) -> dict[tuple[str, str], WrittenAnswer]:
    found: list[WrittenAnswer] = []
    write_answers(
        part, url, [(point, prompt) for point in points for prompt in PROMPTS], GRID, SAMPLING, True, found.append
    )
    return {(each.point, each.prompt): each for each in found}


def test_candidates_of_an_unsteered_method_are_written_once_and_each_point_takes_the_servers_best(
    url: str, engine: CountingEngine
) -> None:
    best = method(steering="none", candidates=6, model=MIX)
    before = len(engine.samplings)
    found = write(best, url, list(GRID))
    assert len(engine.samplings) - before == 6 * len(PROMPTS)
    assert set(found) == {(point, prompt.id) for point in GRID for prompt in PROMPTS}
    with Client(url) as client:
        for prompt in PROMPTS:
            for point, weights in GRID.items():
                reply = client.chat(
                    [dict(turn) for turn in prompt.messages],
                    model=MIX,
                    seed=make_seed(SAMPLING.seed, prompt.id, 0),
                    max_tokens=12,
                    candidates={"n": 6, "select": "best", "preferences": dict(weights)},
                )
                own = found[point, prompt.id]
                assert own.text == reply.text
                assert reply.usage is not None
                assert own.tokens == reply.usage.completion_tokens
    assert len({found[point, "p0"].text for point in GRID}) > 1
    assert {each.logprob for each in found.values()} == {None}  # that of a chosen candidate says nothing


def test_one_missing_point_is_asked_for_alone(url: str, engine: CountingEngine) -> None:
    best, last = method(steering="none", candidates=6), list(GRID)[-1]
    assert write(best, url, [last])[last, "p0"].text == write(best, url, list(GRID))[last, "p0"].text


def test_candidates_of_a_steered_method_are_written_at_each_point(url: str, engine: CountingEngine) -> None:
    before = len(engine.samplings)
    write(method(candidates=2), url, list(GRID)[:2])
    assert len(engine.samplings) - before == 2 * 2 * len(PROMPTS)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"calm": 0.3, "funny": 0.7}, "Why 0? Be funny. Be calm."),
        ({"calm": 0.95, "funny": 0.05}, "Why 0? Be calm."),
    ],
)
def test_sentences_are_said_in_the_prompt_by_weight(weights: Weights, said: str) -> None:
    part = method(sentences={"calm": "Be calm.", "funny": "Be funny."})
    assert say_sentences(part, PROMPTS[0], weights) == [{"role": "user", "content": said}]
    assert say_sentences(method(), PROMPTS[0], weights) == [{"role": "user", "content": "Why 0?"}]


def test_a_method_is_measured_where_preferences_change_it() -> None:
    assert list_points(method(steering="none"), GRID) == [EVERYWHERE]
    for keys in ({}, {"candidates": 2, "steering": "none"}, {"steering": "none", "sentences": {"calm": "Be calm."}}):
        assert list_points(method(**keys), GRID) == list(GRID)


def choice(**rewards: float) -> ChatChoice:
    return ChatChoice.model_validate(
        {
            "message": {"content": str(rewards)},
            "rewards": {name: {"raw": 9.0, "calibrated": value} for name, value in rewards.items()} or None,
        }
    )


def test_the_best_candidate_is_the_first_of_equals_and_one_without_rewards_is_none() -> None:
    candidates = [choice(), choice(a=1, b=0), choice(a=0, b=1), choice(a=1, b=-5)]
    for weights, at in (({"a": 1.0}, 1), ({"b": 1.0}, 2), ({"a": 0.5, "b": 0.5}, 1), ({"a": 0.4, "b": 0.6}, 2)):
        assert choose_candidate(candidates, weights) is candidates[at]
    with pytest.raises(ServerFault, match="no candidate has a reward"):
        choose_candidate([choice()], {"a": 1.0})


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_answers_than_one_is_no_answer(count: int) -> None:
    with pytest.raises(ServerFault, match=f"there gave {count} answers where one was asked for"):
        take_only([choice()] * count, "there")
