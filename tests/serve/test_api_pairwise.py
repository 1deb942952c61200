"""``/v1/preferences`` by rewards that compare answers, and ``/v1/score`` by those that read steps."""

import math
from typing import Any

import pytest
from serve.border import served
from serve.counting import LEAN, CountingEngine

from tureen_serve.inference.engine import AnswerPair, Steps

THREE = {"prompt": "hi", "candidates": ["calm calm", "calm", "calm calm calm calm"]}
STEPPED = {"prompt": "hi", "steps": ["calm calm", "none", "calm"]}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def sure(gap: float, temperature: float = 2) -> float:
    """Both orders of a comparison whose reward leans to the first place."""
    return (sigmoid((gap + LEAN) / temperature) + sigmoid((gap - LEAN) / temperature)) / 2


def ask(route: str, engine: CountingEngine, status: int = 200, **body: Any) -> Any:
    with served(engine) as client:
        reply = client.post(route, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def label(*rewards: str, status: int = 200, **body: Any) -> Any:
    return ask("/v1/preferences", CountingEngine(*rewards), status, **{"items": [THREE], **body})


def test_candidates_are_ranked_by_comparing_all_in_both_orders() -> None:
    engine = CountingEngine("calm", "duel")
    reply = ask("/v1/preferences", engine, items=[THREE], rewards=["duel"], matrix=True)
    (found,) = reply["data"]
    assert (found["ranking"], found["chosen"], found["rejected"], found["tie"]) == ([2, 0, 1], 2, 1, False)
    assert found["probability"] == pytest.approx(sure(3))
    assert found["margin"] == pytest.approx(math.log(sure(3) / (1 - sure(3))))
    assert found["matrix"][0] == pytest.approx([0.5, sure(1), 1 - sure(2)])
    assert found["candidates"] == []
    first, second = (sigmoid((3 + lean) / 2) for lean in (LEAN, -LEAN))
    assert found["orders"] == pytest.approx([first, second])
    assert found["order_matrix"][2][1] == pytest.approx(first)
    assert found["order_matrix"][1][2] == pytest.approx(1 - second)
    assert reply["fingerprint"] == {"duel": "duel-fingerprint"}
    assert reply["usage"]["total_tokens"] == 6 * 7
    ((asked, rewards),) = engine.calls
    assert rewards == ["duel"]
    assert [type(each) for each in asked] == [AnswerPair] * 6
    said = [(each.first[0]["content"], each.second[0]["content"]) for each in asked if isinstance(each, AnswerPair)]
    assert said[:2] == [("calm calm", "calm"), ("calm", "calm calm")]


def test_what_compares_labels_by_default_where_nothing_scores() -> None:
    assert label("duel")["data"][0]["ranking"] == [2, 0, 1]
    assert label("calm", "duel")["data"][0]["candidates"] != []


def test_a_knockout_is_a_call_a_round_for_all_items() -> None:
    engine = CountingEngine("duel")
    reply = ask("/v1/preferences", engine, items=[THREE, THREE], comparisons="knockout")
    for found in reply["data"]:
        assert (found["ranking"], found["rejected"], found["matrix"]) == ([2, 0, 1], 0, None)
        assert found["probability"] == pytest.approx(sure(2))
    assert [len(groups) for groups, _ in engine.calls] == [4, 4]


def test_pairs_for_trl_have_no_scores_but_a_probability() -> None:
    (row,) = label("duel", format="trl")["data"]
    assert row["chosen"] == [{"role": "assistant", "content": "calm calm calm calm"}]
    assert row["rejected"] == [{"role": "assistant", "content": "calm"}]
    assert (row["chosen_score"], row["rejected_score"]) == (None, None)
    assert row["probability"] == pytest.approx(sure(3))
    assert label("duel", format="ranking")["data"] == [
        {"index": 0, "ranking": [2, 0, 1], "truncated": False, "error": None}
    ]


def test_two_of_them_are_weighed() -> None:
    (found,) = label("duel", "other-duel", preferences={"duel": 1, "other-duel": 3})["data"]
    there, back = (0.25 * (3 + lean) / 2 + 0.75 * (3 + lean) for lean in (LEAN, -LEAN))
    assert found["orders"] == pytest.approx([sigmoid(there), sigmoid(back)])
    assert found["probability"] == pytest.approx((sigmoid(there) + sigmoid(back)) / 2)


def test_one_of_them_is_subtracted_in_log_odds() -> None:
    weights = {"duel": 1, "other-duel": -0.25}
    (found,) = label("duel", "other-duel", preferences=weights, normalize="none")["data"]
    there, back = ((3 + lean) / 2 - 0.25 * (3 + lean) for lean in (LEAN, -LEAN))
    assert found["orders"] == pytest.approx([sigmoid(there), sigmoid(back)])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rewards": ["duel", "calm"]}, "rewards[1]"),
        ({"rewards": ["duel"], "normalize": "none"}, "normalize"),
        ({"preferences": {"duel": 1, "calm": 1}}, "preferences.calm"),
        ({"rewards": ["duel"], "soup": True, "preferences": {"duel": 1}}, "soup"),
        ({"rewards": ["duel"], "items": [{"prompt": "hi", "candidates": ["one"]}]}, "items[0].candidates"),
        ({"rewards": ["duel"], "items": [{"prompt": "hi", "candidates": ["one"] * 92}]}, "items"),
        ({"rewards": ["duel"], "items": [THREE] * 1366}, "items"),
        ({"rewards": ["duel"], "items": [THREE, STEPPED]}, "items[1].steps"),
        ({"rewards": ["proof"]}, "rewards[0]"),
        ({"rewards": ["duel"], "comparisons": "knockout", "matrix": True}, "matrix"),
        ({"rewards": ["duel"], "items": [{**THREE, "tools": [{"name": "f"}]}]}, "items[0].tools"),
        (
            {"rewards": ["duel"], "items": [THREE, {**THREE, "chat_template_kwargs": {"enable_thinking": False}}]},
            "items[1].chat_template_kwargs",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_field(body: Any, param: str) -> None:
    refused = label("calm", "duel", "proof", status=422, **body)["error"]
    assert refused["param"] == param


def test_a_bad_item_is_spared() -> None:
    reply = label("duel", items=[{"prompt": "hi", "candidates": ["one"]}, THREE], on_error="item")
    spared, good = reply["data"]
    assert spared["error"]["param"] == "items[0].candidates"
    assert good["ranking"] == [2, 0, 1]


# --------------------------------------------------------------------------- steps


def test_each_step_is_scored_and_the_answer_summed_up() -> None:
    engine = CountingEngine("calm", "duel", "proof")
    reply = ask("/v1/score", engine, items=[STEPPED])
    (found,) = reply["data"]
    right = [sigmoid(count / 4) for count in (2, 0, 1)]
    assert [step["scores"]["proof"]["raw"] for step in found["candidates"]] == [2, 0, 1]
    assert [step["scores"]["proof"]["calibrated"] for step in found["candidates"]] == pytest.approx(right)
    assert found["summary"]["proof"] == pytest.approx(
        {"min": right[1], "product": math.prod(right), "last": right[2], "mean": sum(right) / 3, "calibrated": True}
    )
    ((asked, rewards),) = engine.calls
    assert rewards == ["proof"]
    assert [each.steps for each in asked if isinstance(each, Steps)] == [STEPPED["steps"]]


def test_every_fingerprint_may_be_demanded() -> None:
    demanded = {name: f"{name}-fingerprint" for name in ("calm", "duel")}
    assert label("calm", "duel", fingerprint=demanded)["data"][0]["error"] is None


def test_more_steps_than_a_request_should_wait_for_are_refused() -> None:
    refused = ask("/v1/score", CountingEngine("proof"), 422, items=[{"prompt": "hi", "steps": ["a"] * 241}] * 17)[
        "error"
    ]
    assert (refused["param"], "4096" in refused["message"]) == ("items", True)


def test_whole_answers_have_no_summary() -> None:
    assert ask("/v1/score", CountingEngine("calm", "proof"), items=[THREE])["data"][0]["summary"] is None


@pytest.mark.parametrize(
    ("loaded", "body", "param", "says"),
    [
        (("calm",), {"items": [STEPPED]}, "items[0].steps", "none of the loaded rewards scores steps"),
        (("proof",), {"items": [THREE]}, "rewards", "none of the loaded rewards scores whole answers"),
        (("calm", "proof"), {"items": [STEPPED], "rewards": ["calm"]}, "rewards[0]", "send `candidates`"),
        (("calm", "proof"), {"items": [THREE], "rewards": ["proof"]}, "rewards[0]", "`steps`"),
        (("calm", "duel"), {"items": [THREE], "rewards": ["duel"]}, "rewards[0]", "/v1/preferences"),
        (("calm", "proof"), {"items": [STEPPED, THREE]}, "items[1].candidates", "different rewards"),
    ],
)
def test_a_reward_reads_only_what_it_reads(loaded: tuple[str, ...], body: Any, param: str, says: str) -> None:
    refused = ask("/v1/score", CountingEngine(*loaded), 422, **body)["error"]
    assert refused["param"] == param
    assert says in refused["message"]


def test_dialects_and_candidates_of_a_chat_see_only_what_scores() -> None:
    engine = CountingEngine("calm", "duel", "proof")
    with served(engine) as client:
        assert client.post("/classify", json={"input": "x"}).status_code == 200
        names = [card["id"] for card in client.get("/vllm/v1/models").json()["data"]]
    assert names == ["calm"]
