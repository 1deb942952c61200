"""A reward without a calibration on our own routes: raw, said to be so, and never added to another one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from serve.border import served
from serve.uncalibrated import NAMED, ask, bare_engine, refused
from starlette.testclient import TestClient

from tureen.errors import Unprocessable
from tureen.wire import Label, PreferencesReply, ScoreReply
from tureen_core.calibration import compute_sigmoid
from tureen_serve.api.preferences import label_each
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.score import score_each
from tureen_serve.telemetry import Metrics

RAW, SURE = 2.0, compute_sigmoid(2.0)
ITEM = {"prompt": "q", "candidates": ["calm", "calm calm funny"]}
CODE = "uncalibrated_reward"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served(bare_engine()) as found:
        yield found


@pytest.fixture(scope="module")
def sides() -> Iterator[TestClient]:
    """A server of rewards that compare answers and that read steps."""
    with served(bare_engine("duel", "other-duel", "proof")) as found:
        yield found


# --------------------------------------------------------------------------- models and metrics


def test_the_models_say_which_reward_is_calibrated(client: TestClient) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    told = {name: (card["calibrated"], card["calibration"]) for name, card in cards.items()}
    assert told["calm"] == (False, {})
    assert told["funny"] == (True, {"funny": {"mean": 0, "std": 1, "temperature": 2}})
    assert told["words"] == told["words:even"] == (None, {})
    assert client.get("/v1/models/calm").json()["calibrated"] is False


def test_the_metric_of_calibrated_rewards_leaves_it_out() -> None:
    with served(bare_engine()) as client:
        ask(client, "/v1/score", items=[ITEM])
        lines = client.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith(("tureen_score_count", "tureen_texts_to"))]
    assert {line.partition("} ")[0] for line in counted if not line.endswith(" 0.0")} == {
        'tureen_texts_total{model="calm",outcome="scored"',
        'tureen_texts_total{model="funny",outcome="scored"',
        'tureen_score_count{caller="unnamed",model="funny"',
    }


# --------------------------------------------------------------------------- /v1/score


def best(reply: Any) -> Any:
    """The scores of the second candidate of the first item."""
    return reply["data"][0]["candidates"][1]


def test_a_score_is_raw_and_calibrated_is_null(client: TestClient) -> None:
    found = best(ask(client, "/v1/score", items=[ITEM]))
    assert found["scores"] == {"calm": {"raw": RAW, "calibrated": None}, "funny": {"raw": 1, "calibrated": 1}}
    assert found["reward"] is None


def test_alone_its_weighted_reward_is_raw(client: TestClient) -> None:
    for weights in ({"calm": 1}, {"calm": 7}, {"calm": 1, "funny": 0}):
        assert best(ask(client, "/v1/score", items=[ITEM], preferences=weights))["reward"] == RAW


def test_it_is_not_weighed_with_others(client: TestClient) -> None:
    error = refused(client, "/v1/score", items=[ITEM], preferences={"calm": 1, "funny": 1})
    assert (error["param"], error["code"], NAMED in error["message"]) == ("preferences", CODE, True)


def test_a_soup_with_it_is_raw_too(client: TestClient) -> None:
    asked: dict[str, Any] = {"items": [ITEM], "preferences": {"calm": 1, "funny": 1}, "soup": True}
    found = best(ask(client, "/v1/score", **asked))
    assert (found["scores"], found["reward"]) == ({"soup": {"raw": 1.5, "calibrated": None}}, 1.5)
    (label,) = ask(client, "/v1/preferences", **asked)["data"]
    assert (label["chosen"], label["margin"], label["calibrated"]) == (1, 1.0, False)


def test_steps_have_log_odds_and_their_summary_says_so(sides: TestClient) -> None:
    item = {"prompt": "q", "steps": ["calm calm", "why"]}
    (found,) = ask(sides, "/v1/score", items=[item], preferences={"proof": 1})["data"]
    assert [step["scores"]["proof"] for step in found["candidates"]] == [
        {"raw": 2, "calibrated": None},
        {"raw": 0, "calibrated": None},
    ]
    assert [step["reward"] for step in found["candidates"]] == [2, 0]
    assert found["summary"]["proof"] == pytest.approx(
        {"min": 0.5, "product": SURE / 2, "last": 0.5, "mean": (SURE + 0.5) / 2, "calibrated": False}
    )


# --------------------------------------------------------------------------- /v1/preferences


@pytest.mark.parametrize("asked", [{"rewards": ["calm"]}, {"preferences": {"calm": 3}}])
def test_a_label_is_bradley_terrys_of_the_raw_rewards(client: TestClient, asked: Any) -> None:
    (label,) = ask(client, "/v1/preferences", items=[ITEM], matrix=True, **asked)["data"]
    sure = compute_sigmoid(1.0)
    assert (label["ranking"], label["margin"], label["tie"], label["calibrated"]) == ([1, 0], 1.0, False, False)
    assert label["probability"] == sure
    assert label["matrix"] == [pytest.approx([0.5, 1 - sure]), pytest.approx([sure, 0.5])]
    assert [each["reward"] for each in label["candidates"]] == [1, 2]
    (row,) = ask(client, "/v1/preferences", items=[ITEM], format="trl", **asked)["data"]
    assert (row["chosen_score"], row["rejected_score"], row["margin"], row["calibrated"]) == (2, 1, 1, False)
    assert row["probability"] == sure
    (row,) = ask(client, "/v1/preferences", items=[ITEM], format="ranking", **asked)["data"]
    assert row["ranking"] == [1, 0]


def test_a_calibrated_label_says_so_and_one_without_a_verdict_says_nothing(client: TestClient) -> None:
    items = [ITEM, {"prompt": "q", "candidates": ["one"]}]
    labels = ask(client, "/v1/preferences", items=items, rewards=["funny"], on_error="item")["data"]
    assert [label["calibrated"] for label in labels] == [True, None]


def test_all_rewards_together_are_refused(client: TestClient) -> None:
    for asked, param in (({}, "rewards"), ({"preferences": {"calm": 1, "funny": 1}}, "preferences")):
        error = refused(client, "/v1/preferences", items=[ITEM], **asked)
        assert (error["param"], error["code"], NAMED in error["message"]) == (param, CODE, True)


def test_a_margin_in_deviations_is_refused(client: TestClient) -> None:
    error = refused(client, "/v1/preferences", items=[ITEM], rewards=["calm"], tie_margin=0.1)
    assert (error["param"], error["code"], NAMED in error["message"]) == ("tie_margin", CODE, True)
    (label,) = ask(client, "/v1/preferences", items=[ITEM], rewards=["funny"], tie_margin=2)["data"]
    assert label["tie"] is True


@pytest.mark.parametrize("comparisons", ["all", "knockout"])
def test_comparisons_have_the_temperature_1(sides: TestClient, comparisons: str) -> None:
    asked = {"items": [ITEM], "rewards": ["duel"], "comparisons": comparisons, "tie_margin": 0.1}
    (label,) = ask(sides, "/v1/preferences", **asked)["data"]
    assert (label["chosen"], label["tie"], label["calibrated"]) == (1, False, False)
    assert label["orders"] == pytest.approx([compute_sigmoid(1.5), compute_sigmoid(0.5)])
    error = refused(sides, "/v1/preferences", items=[ITEM], preferences={"duel": 1, "other-duel": 1})
    assert (error["param"], "duel has no calibration" in error["message"]) == ("preferences", True)


def test_in_a_batch_only_the_body_that_weighs_it_with_others_fails() -> None:
    mixed = {"items": [ITEM], "preferences": {"calm": 1, "funny": 1}}
    bodies = [mixed, {"items": [ITEM], "rewards": ["calm"]}]
    engine = bare_engine()
    scored = asyncio.run(score_each(engine, Metrics(), [ScoreBody.model_validate(each) for each in bodies]))
    labels = asyncio.run(label_each(engine, Metrics(), [PreferencesBody.model_validate(each) for each in bodies]))
    for failed, done in (scored, labels):
        assert isinstance(failed, Unprocessable)
        assert (failed.code, isinstance(done, Unprocessable)) == (CODE, False)
    assert isinstance(scored[1], ScoreReply)
    assert isinstance(labels[1], PreferencesReply)
    (label,) = labels[1].data
    assert isinstance(label, Label)
    assert (label.margin, label.calibrated) == (1, False)


# --------------------------------------------------------------------------- best of n


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_candidates_are_chosen_by_the_raw_reward(client: TestClient, path: str) -> None:
    prompt: dict[str, Any] = (
        {"prompt": "q"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "q"}]}
    )
    asked = {**prompt, "preferences": {"calm": 1, "funny": 1}, "max_tokens": 5, "seed": 3}
    judged = {"n": 6, "preferences": {"calm": 1}}
    every = ask(client, path, **asked, candidates={**judged, "select": "all"})["choices"]
    raws = [choice["rewards"]["calm"]["raw"] for choice in every]
    assert [choice["reward"] for choice in every] == raws
    assert {choice["rewards"]["calm"]["calibrated"] for choice in every} == {None}
    (chosen,) = ask(client, path, **asked, candidates=judged)["choices"]
    assert chosen["reward"] == max(raws) > min(raws)
    for more in ({"n": 2}, {"n": 2, "preferences": {"calm": 1, "funny": 1}}):
        error = refused(client, path, **asked, candidates=more)
        assert (error["param"], NAMED in error["message"]) == ("candidates.preferences", True)
