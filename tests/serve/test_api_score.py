"""``/v1/score``: every number foretold, every bad item named, the good ones untouched."""

import json
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, CountingEngine

ITEM = {"prompt": "hi", "candidates": ["calm calm calm", "funny calm"]}
LONG = "word " * CONTEXT


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def post(body: Any, engine: CountingEngine | None = None) -> Any:
    with served(engine) as client:
        content = json.dumps(body).encode()  # lone surrogates as escapes
        return client.post("/v1/score", content=content, headers={"content-type": "application/json"})


def score(**body: Any) -> Any:
    reply = post({"items": [ITEM], **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def error(status: int = 422, **body: Any) -> Any:
    reply = post({"items": [ITEM], **body})
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


# --------------------------------------------------------------------------- what is scored


def test_all_loaded_rewards_answer_raw_and_calibrated() -> None:
    reply = score()
    assert reply["object"] == "list"
    assert reply["fingerprint"] == {"calm": "calm-fingerprint", "funny": "funny-fingerprint"}
    assert reply["preferences"] is None
    (item,) = reply["data"]
    assert item["index"] == 0
    first, second = item["candidates"]
    assert first["scores"] == {"calm": {"raw": 3, "calibrated": 1}, "funny": {"raw": 0, "calibrated": 0}}
    assert second["scores"] == {"calm": {"raw": 1, "calibrated": 0}, "funny": {"raw": 1, "calibrated": 1}}
    assert (first["reward"], first["error"], first["truncated"]) == (None, None, False)


def test_a_finished_conversation_is_an_item_with_one_candidate() -> None:
    conversation = [message("system", "s"), message("user", "hi"), message("assistant", "funny funny")]
    (item,) = score(items=[{"messages": conversation}])["data"]
    assert [candidate["scores"]["funny"]["raw"] for candidate in item["candidates"]] == [2]


def test_prompts_and_candidates_may_be_messages() -> None:
    candidates = ["calm", [message("assistant", "calm"), message("user", "more"), message("assistant", "calm calm")]]
    (item,) = score(items=[{"prompt": [message("user", "hi")], "candidates": candidates}])["data"]
    assert [candidate["scores"]["calm"]["raw"] for candidate in item["candidates"]] == [1, 2]


def test_content_may_be_openais_parts() -> None:
    parts = [{"type": "text", "text": "calm "}, {"type": "text", "text": "calm"}]
    messages = [message("user", "hi"), {"role": "assistant", "content": parts}]
    assert score(items=[{"messages": messages}])["data"][0]["candidates"][0]["scores"]["calm"]["raw"] == 2


def test_items_keep_their_order_and_tokens_are_counted() -> None:
    items = [{"prompt": "hi", "candidates": ["calm " * count]} for count in (3, 1, 2)]
    reply = score(items=items, rewards=["calm"])
    assert [item["candidates"][0]["scores"]["calm"]["raw"] for item in reply["data"]] == [3, 1, 2]
    tokens = [item["candidates"][0]["tokens"] for item in reply["data"]]
    assert tokens[0] > tokens[2] > tokens[1]
    assert reply["usage"] == {"prompt_tokens": sum(tokens), "completion_tokens": 0, "total_tokens": sum(tokens)}


# --------------------------------------------------------------------------- which rewards, which weights


def test_named_rewards_alone_in_the_order_named() -> None:
    assert list(score(rewards=["funny"])["fingerprint"]) == ["funny"]
    reply = score(rewards=["funny", "calm", "funny"])
    assert list(reply["data"][0]["candidates"][0]["scores"]) == ["funny", "calm"]


def test_preferences_weigh_calibrated_rewards_and_ask_only_for_those() -> None:
    reply = score(preferences={"calm": 3, "funny": 1})
    assert reply["preferences"] == {"calm": 0.75, "funny": 0.25}
    assert [candidate["reward"] for candidate in reply["data"][0]["candidates"]] == [0.75, 0.25]
    engine = CountingEngine()
    alone = post({"items": [ITEM], "preferences": {"funny": 2, "calm": 0}}, engine).json()
    assert engine.calls[0][1] == ["funny"]
    assert alone["preferences"] == {"funny": 1.0}
    assert list(alone["fingerprint"]) == ["funny"]


def test_weights_under_none_are_used_as_sent_so_that_a_reward_is_subtracted() -> None:
    reply = score(preferences={"calm": 1, "funny": -0.5}, normalize="none")
    assert reply["preferences"] == {"calm": 1, "funny": -0.5}
    assert [candidate["reward"] for candidate in reply["data"][0]["candidates"]] == [1, -0.5]
    alone = score(preferences={"calm": -2}, normalize="none")
    assert [candidate["reward"] for candidate in alone["data"][0]["candidates"]] == [-2, 0]


def test_rewards_and_preferences_are_both_reported() -> None:
    reply = score(rewards=["calm"], preferences={"funny": 1})
    first, second = reply["data"][0]["candidates"]
    assert list(first["scores"]) == ["calm", "funny"]
    assert (first["reward"], second["reward"]) == (0, 1)


def test_a_soup_is_one_reward_on_a_scale_of_its_own() -> None:
    reply = score(preferences={"calm": 1, "funny": 3}, soup=True)
    assert list(reply["fingerprint"]) == ["calm", "funny"]
    first = reply["data"][0]["candidates"][0]
    raw = 0.25 * 3
    calibrated = (raw - 0.25 * 1) / (0.25 * 2 + 0.75 * 1)
    assert first["scores"] == {"soup": {"raw": raw, "calibrated": pytest.approx(calibrated)}}
    assert first["reward"] == pytest.approx(calibrated)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"rewards": ["calm", "angry"]}, "rewards[1]", "unknown_reward"),
        ({"rewards": []}, "rewards", "invalid_value"),
        ({"rewards": "calm"}, "rewards", "invalid_value"),
        ({"preferences": {"angry": 1}}, "preferences.angry", "unknown_objective"),
        ({"preferences": {"calm": -1}}, "preferences.calm", "invalid_value"),
        ({"preferences": {"calm": 0}}, "preferences", "invalid_value"),
        ({"preferences": {}}, "preferences", "invalid_value"),
        ({"soup": True}, "preferences", "invalid_value"),
        ({"soup": True, "preferences": {"calm": 1, "funny": -1}}, "preferences.funny", "invalid_value"),
        ({"soup": True, "preferences": {"calm": 1, "funny": 1}, "normalize": "none"}, "normalize", "invalid_value"),
        ({"preferences": {"calm": 0}, "normalize": "none"}, "preferences", "invalid_value"),
        ({"preferences": {"calm": 17}, "normalize": "none"}, "preferences.calm", "invalid_value"),
        ({"preferences": {"calm": 1}, "normalize": "l2"}, "normalize", "invalid_value"),
        ({"normalize": "none"}, "normalize", "invalid_value"),
        ({"soup": True, "preferences": {"calm": 1}, "rewards": ["calm"]}, "rewards", "invalid_value"),
        ({"fingerprint": {"angry": "x"}}, "fingerprint.angry", "unknown_reward"),
        ({"reward": ["calm"]}, "reward", "invalid_value"),
        ({"items": []}, "items", "invalid_value"),
        ({"priority": "urgent"}, "priority", "invalid_value"),
    ],
)
def test_what_cannot_be_asked_is_named(body: dict[str, Any], param: str, code: str) -> None:
    found = error(**body)
    assert (found["param"], found["code"]) == (param, code)
    if "angry" in str(body):
        assert "calm, funny" in found["message"]


def test_without_rewards_there_is_nothing_to_ask() -> None:
    engine = CountingEngine()
    engine.rewards = {}
    reply = post({"items": [ITEM]}, engine)
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "rewards")


def test_the_body_of_vllms_route_is_sent_on_its_way() -> None:
    for body in ({"model": "m", "text_1": "a", "text_2": "b"}, {"queries": "a", "documents": ["b"]}):
        found = post(body)
        assert found.status_code == 422
        assert "/vllm" in found.json()["error"]["message"]


# --------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize(
    ("demand", "status"),
    [
        ("calm-fingerprint", 200),
        ({"calm": "calm-fingerprint", "funny": "funny-fingerprint"}, 200),
        ({}, 200),
        ("other", 409),
        ({"calm": "other"}, 409),
        ({"calm": "calm-fingerprint", "funny": "other"}, 409),
    ],
)
def test_a_demanded_fingerprint_must_be_the_loaded_one(demand: Any, status: int) -> None:
    reply = post({"items": [ITEM], "rewards": ["calm"], "fingerprint": demand})
    assert reply.status_code == status
    if status == 409:
        found = reply.json()["error"]
        assert found["code"] == "fingerprint_mismatch"
        assert found["param"].startswith("fingerprint")
        assert "-fingerprint" in found["message"]


def test_one_fingerprint_for_several_rewards_must_be_that_of_each() -> None:
    assert error(409, fingerprint="calm-fingerprint")["param"] == "fingerprint"


# --------------------------------------------------------------------------- bad items

BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "hi", "candidates": []}, "candidates"),
    ({"prompt": "hi", "candidates": ["calm", 5]}, "candidates[1]"),
    ({"prompt": "hi", "candidates": ["\ud800"]}, "candidates[0]"),
    ({"prompt": "hi", "candidates": [[{"role": "robot", "content": "calm"}]]}, "candidates[0][0].role"),
    ({"prompt": "hi", "candidates": ["calm", [{"role": "user", "content": "calm"}]]}, "candidates[1]"),
    ({"prompt": "hi", "candidates": [LONG]}, "candidates[0]"),
    ({"prompt": "hi", "candidates": ["boundless"]}, "candidates[0]"),
    ({"prompt": "hi", "steps": ["a", "b"]}, "steps"),
    ({"messages": [{"role": "user", "content": "hi"}]}, "messages[0].role"),
    ({"messages": []}, "messages"),
    ({"text": "hi"}, "text"),
    ({}, ""),
]


@pytest.mark.parametrize(("bad", "field"), BAD)
def test_a_bad_item_fails_the_call_by_its_name(bad: dict[str, Any], field: str) -> None:
    found = error(500 if "boundless" in str(bad) else 422, items=[ITEM, ITEM, bad])
    assert (found["param"] or "").startswith(f"items[2].{field}".rstrip("."))
    assert found["message"]


@pytest.mark.parametrize(("bad", "field"), BAD)
def test_or_carries_its_error_alone(bad: dict[str, Any], field: str) -> None:
    alone = score(items=[ITEM])["data"][0]
    reply = score(items=[ITEM, bad, ITEM], on_error="item")
    first, failed, last = reply["data"]
    assert first == alone
    assert last == alone | {"index": 2}
    assert failed["index"] == 1
    found = failed["error"] or next(each["error"] for each in failed["candidates"] if each["error"])
    assert (found["param"] or "").startswith(f"items[1].{field}".rstrip("."))
    for candidate in failed["candidates"]:
        assert (candidate["error"] is None) != (candidate["scores"] is None)


def test_the_good_candidates_of_an_item_are_untouched_by_a_bad_one() -> None:
    items = [{"prompt": "hi", "candidates": ["calm calm calm", LONG, "funny calm"]}]
    found = score(items=items, on_error="item", preferences={"calm": 1})["data"][0]["candidates"]
    assert [candidate["index"] for candidate in found] == [0, 1, 2]
    assert [candidate["reward"] for candidate in found] == [1, None, 0]
    assert found[1]["scores"] is None
    assert found[1]["error"]["code"] == "context_length_exceeded"


def test_long_texts_are_cut_only_when_that_is_asked_for() -> None:
    found = score(items=[{"prompt": "hi", "candidates": [LONG]}], truncate=True)["data"][0]["candidates"][0]
    assert (found["truncated"], found["tokens"]) == (True, CONTEXT)


def test_a_score_that_is_not_finite_is_our_fault_and_never_leaves() -> None:
    found = error(500, items=[{"prompt": "hi", "candidates": ["boundless"]}])
    assert (found["code"], found["param"]) == ("non_finite_score", "items[0].candidates[0]")
    with served() as client:
        items = [{"prompt": "hi", "candidates": ["boundless"]}]
        text = client.post("/v1/score", json={"items": items, "on_error": "item"}).text
    assert "Infinity" not in text
    assert "NaN" not in text


def test_when_every_item_is_bad_the_engine_is_not_asked() -> None:
    engine = CountingEngine()
    reply = post({"items": [{}, {}], "on_error": "item"}, engine)
    assert (reply.status_code, engine.calls) == (200, [])
    assert reply.json()["usage"]["total_tokens"] == 0


def test_a_list_of_items_that_is_none_is_refused_even_if_items_are_spared() -> None:
    assert error(items="all", on_error="item")["param"] == "items"
    assert error(items=[], on_error="item")["param"] == "items"
    assert error(items=["text"], on_error="fail")["param"] == "items[0]"


def test_before_the_models_are_there_it_is_a_503() -> None:
    engine = CountingEngine()
    engine.down = "reward calm: probe 3 differs by 0.4"
    reply = post({"items": [ITEM]}, engine)
    assert reply.status_code == 503
    assert reply.json()["error"]["message"] == engine.down
    assert int(reply.headers["retry-after"]) > 0


# --------------------------------------------------------------------------- what newcomers send


@pytest.mark.parametrize("body", [[ITEM], "hello", 3, True])
def test_a_body_that_is_no_object_is_shown_one(body: Any) -> None:
    reply = post(body)
    assert reply.status_code == 422
    assert '{"items": [{"messages": [...]}]}' in reply.json()["error"]["message"]


def test_no_body_at_all_is_told() -> None:
    reply = post(None)
    assert (reply.status_code, reply.json()["error"]["message"]) == (422, "the body is null; send an object")


@pytest.mark.parametrize("body", [{"messages": []}, {"text": "x"}, {"input": "x"}, {}, {"items": ITEM}, {"items": "x"}])
def test_a_body_without_a_list_of_items_is_shown_one(body: Any) -> None:
    found = post(body).json()["error"]
    assert found["param"] == "items"
    assert '{"items": [{"messages": [...]}]}' in found["message"]


def test_a_negative_weight_is_told_a_way_that_is_there() -> None:
    message = error(preferences={"calm": -1, "funny": 2})["message"]
    assert message == "the weight of 'calm' is negative: send `normalize: \"none\"` to subtract a reward"
