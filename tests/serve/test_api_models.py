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
    assert (card.input, card.licences) == ("conversation", ["CC0"])
    assert card.evaluation == {"heldout": {"accuracy": 0.75, "pairs": 12}}
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


def test_pickers_of_chat_models_see_policies_first_and_may_ask_for_one_kind() -> None:
    kinds = [card.kind for card in cards().values()]
    assert kinds == sorted(kinds, key=lambda kind: kind == "reward")
    with served() as client:
        for kind, names in (("policy", ["words", "rigid"]), ("reward", ["calm", "funny"])):
            found = client.get("/v1/models", params={"type": kind}).json()["data"]
            assert [card["id"] for card in found] == names
        wrong = client.get("/v1/models", params={"type": "banana"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "type")


def test_a_mix_has_a_card() -> None:
    with served() as client:
        card = client.get("/v1/models/words:calm=0.75+funny=0.25").json()
        assert (card["id"], card["kind"]) == ("words:calm=0.75+funny=0.25", "preset")
        assert card["presets"] == {"calm=0.75+funny=0.25": {"calm": 0.75, "funny": 0.25}}
        assert card["created"] > 0
        for name, status in (("words:calm=0.7", 400), ("words:sad=1", 400), ("words:calm=x", 400), ("no:calm=1", 404)):
            assert client.get(f"/v1/models/{name}").status_code == status, name


def test_a_rewards_name_on_a_chat_says_that_it_is_a_reward() -> None:
    with served() as client:
        body: dict[str, Any] = {"model": "calm", "messages": [{"role": "user", "content": "hi"}]}
        reply = client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "calm is a reward" in reply.json()["error"]["message"]
    assert "words" in reply.json()["error"]["message"]


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
