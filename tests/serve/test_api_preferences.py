"""``/v1/preferences``: verdicts in three forms, ties, matrices, and items that cannot be labelled."""

import json
import math
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, CountingEngine

ITEM = {"prompt": "hi", "candidates": ["calm", "calm calm calm"]}
THREE = {"prompt": "hi", "candidates": ["calm calm", "calm", "calm calm calm calm"]}
LONG = "word " * CONTEXT
CALM = {"preferences": {"calm": 1}}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def post(body: Any, engine: CountingEngine | None = None) -> Any:
    with served(engine) as client:
        content = json.dumps(body).encode()
        return client.post("/v1/preferences", content=content, headers={"content-type": "application/json"})


def label(**body: Any) -> Any:
    reply = post({"items": [ITEM], **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def error(status: int = 422, **body: Any) -> Any:
    reply = post({"items": [ITEM], **body})
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


def test_two_candidates_by_one_objective() -> None:
    reply = label(**CALM)
    assert (reply["object"], reply["preferences"]) == ("list", {"calm": 1.0})
    assert reply["fingerprint"] == {"calm": "calm-fingerprint"}
    (found,) = reply["data"]
    assert (found["index"], found["ranking"], found["chosen"], found["rejected"]) == (0, [1, 0], 1, 0)
    assert (found["margin"], found["tie"], found["matrix"], found["error"]) == (1.0, False, None, None)
    assert found["probability"] == pytest.approx(sigmoid(2 / 0.5))
    assert [candidate["scores"]["calm"]["raw"] for candidate in found["candidates"]] == [1, 3]
    assert [candidate["reward"] for candidate in found["candidates"]] == [0, 1]
    assert reply["usage"]["prompt_tokens"] == sum(candidate["tokens"] for candidate in found["candidates"])


def test_of_three_the_best_stands_against_the_worst() -> None:
    (found,) = label(items=[THREE], **CALM)["data"]
    assert (found["ranking"], found["chosen"], found["rejected"], found["margin"]) == ([2, 0, 1], 2, 1, 1.5)
    assert found["probability"] == pytest.approx(sigmoid(3 / 0.5))


def test_several_objectives_weigh_by_their_own_temperatures() -> None:
    items = [{"prompt": "hi", "candidates": ["calm calm calm", "funny"]}]
    (found,) = label(items=items, preferences={"calm": 1, "funny": 3})["data"]
    assert found["ranking"] == [1, 0]
    assert found["margin"] == pytest.approx((0.25 * -0.5 + 0.75 * 1) - (0.25 * 1 + 0))
    assert found["probability"] == pytest.approx(sigmoid(0.25 * -3 / 0.5 + 0.75 * 1 / 2))


def test_a_reward_is_subtracted_from_margins_and_log_odds() -> None:
    items = [{"prompt": "hi", "candidates": ["calm calm calm", "calm calm calm funny funny"]}]
    body = {"preferences": {"calm": 1, "funny": -0.5}, "normalize": "none"}
    (found,) = label(items=items, matrix=True, **body)["data"]
    assert (found["ranking"], found["margin"]) == ([0, 1], 1.0)
    assert found["probability"] == pytest.approx(sigmoid(-0.5 * -2 / 2)) == found["matrix"][0][1]
    assert [each["reward"] for each in found["candidates"]] == [1, 0]


def test_without_preferences_the_asked_rewards_weigh_the_same() -> None:
    assert label()["preferences"] == {"calm": 0.5, "funny": 0.5}
    assert label(rewards=["funny"])["preferences"] == {"funny": 1.0}
    assert label(rewards=["funny"], soup=True)["preferences"] == {"funny": 1.0}


def test_a_soup_is_one_reward_with_one_temperature() -> None:
    items = [{"prompt": "hi", "candidates": ["calm calm", "funny"]}]
    (found,) = label(items=items, preferences={"calm": 1, "funny": 1}, soup=True)["data"]
    assert list(found["candidates"][0]["scores"]) == ["soup"]
    assert found["margin"] == pytest.approx((1.0 - 0.5) / 1.5)
    assert found["probability"] == pytest.approx(sigmoid(0.5 / 1.25))


def test_equal_rewards_are_a_tie() -> None:
    items = [{"prompt": "hi", "candidates": ["calm", "calm"]}, ITEM]
    tied, clear = label(items=items, **CALM)["data"]
    assert (tied["tie"], tied["margin"], tied["probability"], tied["ranking"]) == (True, 0, 0.5, [0, 1])
    assert clear["tie"] is False


@pytest.mark.parametrize(("margin", "tie"), [(0.5, False), (1.0, True), (3, True)])
def test_and_so_are_margins_within_the_bound(margin: float, tie: bool) -> None:
    assert label(tie_margin=margin, **CALM)["data"][0]["tie"] is tie


@pytest.mark.parametrize("margin", [-1, "much", None])
def test_a_bound_that_is_none_is_refused(margin: Any) -> None:
    assert error(tie_margin=margin)["param"] == "tie_margin"


def test_the_matrix_comes_on_request() -> None:
    (found,) = label(items=[THREE], matrix=True, **CALM)["data"]
    matrix = found["matrix"]
    assert [matrix[index][index] for index in range(3)] == [0.5] * 3
    assert matrix[2][1] == pytest.approx(found["probability"])
    assert matrix[0][1] == pytest.approx(sigmoid(1 / 0.5))
    assert matrix[1][0] == pytest.approx(1 - matrix[0][1])


def test_matrices_that_nobody_could_read_are_refused() -> None:
    wide = {"prompt": "hi", "candidates": ["calm"] * 256}
    engine = CountingEngine()
    reply = post({"items": [wide] * 17, "matrix": True}, engine)
    assert (reply.status_code, reply.json()["error"]["param"], engine.calls) == (422, "matrix", [])
    assert post({"items": [wide] * 17}, engine).status_code == 200


def test_rows_for_trl() -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    (row,) = label(items=[{"prompt": prompt, "candidates": ["calm", "calm calm"]}], format="trl", **CALM)["data"]
    assert row == {
        "index": 0,
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "calm calm"}],
        "rejected": [{"role": "assistant", "content": "calm"}],
        "chosen_score": 0.5,
        "rejected_score": 0.0,
        "margin": 0.5,
        "probability": pytest.approx(sigmoid(1 / 0.5)),
        "tie": False,
        "calibrated": True,
        "truncated": False,
        "error": None,
    }


def test_rankings_alone() -> None:
    rows = label(items=[THREE, ITEM], format="ranking", **CALM)["data"]
    assert rows == [
        {"index": 0, "ranking": [2, 0, 1], "truncated": False, "error": None},
        {"index": 1, "ranking": [1, 0], "truncated": False, "error": None},
    ]


def test_an_unknown_format_is_refused() -> None:
    assert error(format="csv")["param"] == "format"


ONE = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "calm"}]}


@pytest.mark.parametrize("alone", [ONE, {"prompt": "hi", "candidates": ["calm"]}])
def test_one_candidate_is_no_preference(alone: dict[str, Any]) -> None:
    found = error(items=[ITEM, alone])
    assert found["param"] == "items[1].candidates"
    assert "2 or more candidates" in found["message"]


@pytest.mark.parametrize("form", ["full", "trl", "ranking"])
@pytest.mark.parametrize(
    ("bad", "param"),
    [
        (ONE, "items[1].candidates"),
        ({"prompt": "hi", "candidates": ["calm", LONG, "calm calm"]}, "items[1].candidates[1]"),
        ({"prompt": "hi", "candidates": ["calm", "boundless"]}, "items[1].candidates[1]"),
        ({"prompt": "hi", "steps": ["a"]}, "items[1].steps"),
        ({"prompt": 5}, "items[1].prompt"),
    ],
)
def test_an_item_of_which_anything_failed_is_not_labelled(form: str, bad: dict[str, Any], param: str) -> None:
    first, failed, last = label(items=[ITEM, bad, ITEM], on_error="item", format=form, **CALM)["data"]
    assert failed["error"]["param"] == param
    assert failed.get("ranking") is None
    assert failed.get("chosen") is None
    assert first["error"] is None
    assert last == first | {"index": 2}


def test_its_good_candidates_are_still_shown() -> None:
    bad = {"prompt": "hi", "candidates": ["calm", LONG]}
    (found,) = label(items=[bad], on_error="item", **CALM)["data"]
    assert found["candidates"][0]["reward"] == 0
    assert found["candidates"][1]["error"]["code"] == "context_length_exceeded"


def test_or_fails_the_call() -> None:
    assert error(items=[ITEM, {"prompt": "hi", "candidates": ["calm", LONG]}])["param"] == "items[1].candidates[1]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rewards": ["angry"]}, "rewards[0]"),
        ({"preferences": {"angry": 1}}, "preferences.angry"),
        ({"fingerprints": "x"}, "fingerprints"),
        ({"soup": True, "rewards": ["calm"], "preferences": {"calm": 1}}, "rewards"),
        ({"preferences": {"calm": 1, "funny": -1}}, "preferences.funny"),
        ({"rewards": ["calm", "funny"], "normalize": "none"}, "normalize"),
        ({"soup": True, "preferences": {"calm": 1}, "normalize": "none"}, "normalize"),
    ],
)
def test_what_cannot_be_asked_is_named(body: dict[str, Any], param: str) -> None:
    assert error(**body)["param"] == param


def test_a_demanded_fingerprint_must_be_the_loaded_one() -> None:
    assert error(409, fingerprint={"calm": "old"})["param"] == "fingerprint.calm"
