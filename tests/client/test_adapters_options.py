"""What a reward function is told: whom to ask, for which number, and what contradicts."""

from typing import Any

import pytest

from tureen import InvalidRequest, Retries, ServerFault, Unprocessable
from tureen.adapters.grouped_rows import make_failed_row
from tureen.adapters.options import Options, RewardQuery, Server, parse_options, parse_options_with_environment
from tureen.calls.call_options import Patience, ScoreOptions
from tureen.wire import CandidateScore, ErrorDetail, Score

ROW = CandidateScore(
    index=0,
    scores={"helpful": Score(raw=3.0, calibrated=1.0), "harmless": Score(raw=-2.0, calibrated=-0.5)},
    reward=0.25,
)
BARE = CandidateScore(index=0, scores={"helpful": Score(raw=3.0)})
ONE = ROW.model_copy(update={"scores": {"helpful": Score(raw=3.0, calibrated=1.0)}, "reward": None})


def test_options_are_the_fields_of_the_server_and_of_the_question() -> None:
    fields = {*Server.__dataclass_fields__, *RewardQuery.__dataclass_fields__} - {"objectives"}
    assert set(Options.__annotations__) == fields
    assert set(Patience.__annotations__) <= set(Server.__dataclass_fields__)


def test_what_is_sent_are_fields_of_a_score_request() -> None:
    assert set(RewardQuery().options()) <= set(ScoreOptions.__annotations__)
    assert RewardQuery().options()["on_error"] == "item"
    assert RewardQuery(objectives=("helpful",)).options()["rewards"] == ["helpful"]
    assert RewardQuery(preferences={"helpful": 2}, soup=True).options()["preferences"] == {"helpful": 2}


def test_options_go_to_the_server_or_to_the_question() -> None:
    retries = Retries(limit=3)
    server, ask = parse_options("helpful", {"base_url": "http://host:1/", "retries": retries, "truncate": True})
    assert server == Server("http://host:1", retries=retries)
    assert ask == RewardQuery(objectives=("helpful",), truncate=True)


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Server(api_key="secret"))


def test_an_unknown_option_is_named() -> None:
    options: Any = {"prefrences": {"helpful": 1.0}}
    with pytest.raises(TypeError, match="prefrences"):
        parse_options(None, options)


@pytest.mark.parametrize(
    ("objective", "options", "param"),
    [
        ("helpful", {"preferences": {"helpful": 1.0}}, "preferences"),
        (None, {"soup": True}, "preferences"),
        (None, {"normalize": "none"}, "normalize"),
        ("helpful", {"normalize": "none"}, "normalize"),
        (None, {"preferences": {"helpful": 1.0}, "calibrated": False}, "calibrated"),
        (None, {"base_url": "host:8900"}, "base_url"),
    ],
)
def test_contradictions_are_named(objective: str | None, options: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_options(objective, options)
    assert caught.value.param == param


def test_the_environment_weighs_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", "http://rewards:8900/v1")
    monkeypatch.setenv("TUREEN_PREFERENCES", "helpful=0.7, harmless=0.3")
    server, ask = parse_options_with_environment(None, {})
    assert server.base_url == "http://rewards:8900"
    assert ask.preferences == {"helpful": 0.7, "harmless": 0.3}
    assert ask.options()["normalize"] == "simplex"
    assert parse_options_with_environment("helpful", {})[1].preferences is None
    assert parse_options_with_environment(None, {"preferences": {"brief": 1}})[1].preferences == {"brief": 1}
    monkeypatch.setenv("TUREEN_PREFERENCES", "none:helpful=1+verbose=-0.5")
    asked = parse_options_with_environment(None, {})[1].options()
    assert (asked["preferences"], asked["normalize"]) == ({"helpful": 1.0, "verbose": -0.5}, "none")
    monkeypatch.delenv("TUREEN_PREFERENCES")
    assert parse_options_with_environment(None, {})[1] == RewardQuery()


@pytest.mark.parametrize(
    ("ask", "row", "reward"),
    [
        (RewardQuery(objectives=("helpful",)), ONE, 1.0),
        (RewardQuery(calibrated=False), ONE, 3.0),
        (RewardQuery(), BARE, 3.0),
        (RewardQuery(calibrated=False), BARE, 3.0),
        (RewardQuery(preferences={"helpful": 0.5, "harmless": 0.5}), ROW, 0.25),
        (RewardQuery(preferences={"helpful": 1.0}), make_failed_row(ErrorDetail(message="bad", type="x")), None),
        (RewardQuery(), make_failed_row(ErrorDetail(message="bad", type="x")), None),
    ],
)
def test_the_reward_is_the_one_that_was_asked_for(ask: RewardQuery, row: CandidateScore, reward: float | None) -> None:
    assert ask.reward(row) == reward


def test_several_rewards_are_not_mixed_unasked() -> None:
    with pytest.raises(InvalidRequest, match="harmless, helpful"):
        RewardQuery().reward(ROW)


def test_components_are_on_the_scale_that_was_asked_for() -> None:
    assert RewardQuery().objective_scores(ROW) == {"helpful": 1.0, "harmless": -0.5}
    assert RewardQuery(calibrated=False).objective_scores(ROW) == {"helpful": 3.0, "harmless": -2.0}
    assert RewardQuery().objective_score(ROW, "humor") is None
    assert RewardQuery().objective_scores(make_failed_row(ErrorDetail(message="bad", type="x"))) == {}


def test_a_certain_reward_is_a_number_or_the_rows_error() -> None:
    assert RewardQuery(preferences={"helpful": 1.0}).require_reward(ROW) == 0.25
    with pytest.raises(Unprocessable, match="too bad"):
        RewardQuery().require_reward(make_failed_row(ErrorDetail(message="too bad", type="x", code="invalid_value")))
    with pytest.raises(ServerFault, match="neither a reward nor an error"):
        RewardQuery(preferences={"helpful": 1.0}).require_reward(ROW.model_copy(update={"reward": None}))
