"""``/v1/models``: every id is one that a request can name, and nothing tells where files lie."""

from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, RUNTIME, CountingEngine

from tureen.wire import ModelCard, ModelList


def cards() -> dict[str, ModelCard]:
    with served() as client:
        reply = client.get("/v1/models")
    assert reply.status_code == 200
    return {card.id: card for card in ModelList.model_validate(reply.json()).data}


def test_every_reward_policy_and_preset_is_listed() -> None:
    found = cards()
    kinds = {name: card.kind for name, card in found.items()}
    assert kinds == {
        "calm": "reward",
        "funny": "reward",
        "words": "policy",
        "words:playful": "preset",
        "words:even": "preset",
        "rigid": "policy",
        "rigid:playful": "preset",
        "rigid:even": "preset",
    }
    assert all(card.object == "model" and card.owned_by == "tureen" and card.created > 0 for card in found.values())
    assert {card.runtime for card in found.values()} == {RUNTIME}


def test_a_rewards_card_tells_its_scale_and_fingerprint() -> None:
    card = cards()["calm"]
    assert card.objectives == ["calm"]
    assert card.calibration == {"calm": {"mean": 1.0, "std": 2.0, "temperature": 0.5}}
    assert card.trained_on == ["calm-digest"]
    assert (card.version, card.fingerprint, card.max_length) == ("calm-1", "calm-fingerprint", CONTEXT)
    assert card.steering == []


def test_a_policys_card_tells_how_it_is_steered() -> None:
    card = cards()["words"]
    assert card.objectives == ["brave", "calm", "funny"]
    assert (card.steering, card.max_length) == (["soup"], CONTEXT)
    assert card.presets == {"playful": {"funny": 1.0}, "even": {"calm": 1.0, "funny": 1.0}}


def test_a_presets_card_tells_its_weights_alone() -> None:
    card = cards()["words:even"]
    assert (card.objectives, card.presets) == (["calm", "funny"], {"even": {"calm": 1.0, "funny": 1.0}})


def test_paths_of_this_machine_stay_here() -> None:
    with served() as client:
        assert "/models/" not in client.get("/v1/models").text
    assert {card.base for card in cards().values()} == {"counting"}


def test_one_model_is_the_same_card() -> None:
    with served() as client:
        listed = client.get("/v1/models").json()["data"]
        for card in listed:
            assert client.get(f"/v1/models/{card['id']}").json()["id"] == card["id"]
        missing = client.get("/v1/models/nobody")
    assert missing.status_code == 404
    assert "words:playful" in missing.json()["error"]["message"]


def test_every_policy_and_preset_can_be_sent_as_model() -> None:
    with served() as client:
        for name, card in ((card["id"], card) for card in client.get("/v1/models").json()["data"]):
            body: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            status = client.post("/v1/chat/completions", json=body).status_code
            assert status == (404 if card["kind"] == "reward" else 200), name


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/calm"])
def test_before_the_models_are_there_it_is_a_503(path: str) -> None:
    engine = CountingEngine()
    engine.down = "not yet"
    with served(engine) as client:
        assert client.get(path).status_code == 503
