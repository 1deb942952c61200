"""``/v1/preferences/fit``: a person's choices in, weights and a preset out."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serve.border import served
from serve.counting import CONTEXT, SCALES
from starlette.testclient import TestClient

ANSWERS = ["calm calm", "calm funny", "funny funny funny", "calm", "funny calm calm calm", "word"]
WEIGHTS = {"calm": 0.8, "funny": 0.2}


class Asked:
    """The route of one server."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def post(self, content: str) -> Any:
        return self.client.post("/v1/preferences/fit", content=content, headers={"content-type": "application/json"})

    def fit(self, **body: Any) -> Any:
        reply = self.post(json.dumps(body))
        assert reply.status_code == 200, reply.text
        return reply.json()

    def error(self, status: int = 422, **body: Any) -> Any:
        reply = self.post(json.dumps(body))
        assert reply.status_code == status, reply.text
        return reply.json()["error"]


@pytest.fixture(scope="module")
def route() -> Iterator[Asked]:
    with served() as client:
        yield Asked(client)


def rewards(answer: str) -> dict[str, float]:
    """What the counting engine gives: an answer's own words, calibrated."""
    return {name: scale.standardise(answer.split().count(name)) for name, scale in SCALES.items()}


def choices() -> list[tuple[str, str]]:
    """All pairs of answers, as a person chooses who goes by ``WEIGHTS`` without mistakes."""

    def value(answer: str) -> float:
        return sum(WEIGHTS[name] * reward for name, reward in rewards(answer).items())

    pairs = [(one, other) for at, one in enumerate(ANSWERS) for other in ANSWERS[:at]]
    return [(one, other) if value(one) > value(other) else (other, one) for one, other in pairs]


TEXTS = [{"prompt": "hi", "chosen": chosen, "rejected": rejected} for chosen, rejected in choices()]
VECTORS = [{"chosen_rewards": rewards(chosen), "rejected_rewards": rewards(rejected)} for chosen, rejected in choices()]
VECTOR = VECTORS[0]


def test_texts_are_scored_by_the_loaded_rewards_as_their_vectors_would_be(route: Asked) -> None:
    from_texts, from_vectors = route.fit(pairs=TEXTS), route.fit(pairs=VECTORS)
    assert from_texts["weights"] == pytest.approx(from_vectors["weights"])
    assert from_texts["weights"]["calm"] > 0.6
    assert from_texts["fingerprint"] == {"calm": "calm-fingerprint", "funny": "funny-fingerprint"}
    assert (from_vectors["fingerprint"], from_vectors["usage"]["total_tokens"]) == ({}, 0)
    assert from_texts["usage"]["prompt_tokens"] > 0


def test_the_reply_has_intervals_figures_and_a_preset(route: Asked) -> None:
    reply = route.fit(pairs=VECTORS, level=0.8, width=0.05, preset="quiet")
    low, high = reply["intervals"]["calm"]
    assert low <= reply["weights"]["calm"] <= high
    assert (reply["object"], reply["level"], reply["width"], reply["pairs"]) == ("preferences.fit", 0.8, 0.05, 15)
    assert reply["accuracy"] == 1
    assert reply["chance_log_likelihood"] == pytest.approx(-15 * np.log(2))
    assert reply["chance_log_likelihood"] < reply["log_likelihood"] < 0
    assert reply["pairs_needed"] > 0
    assert sum(reply["preset"]["quiet"].values()) == 1
    assert reply["preset"]["quiet"] == pytest.approx(reply["weights"], abs=1e-3)


def test_a_preset_may_be_sent_as_preferences(route: Asked) -> None:
    preset = route.fit(pairs=VECTORS)["preset"]["mine"]
    body = {"items": [{"prompt": "q", "candidates": ["calm"]}], "preferences": preset}
    reply = route.client.post("/v1/score", json=body)
    assert reply.json()["preferences"] == pytest.approx(preset)


def test_messages_may_be_sent_for_texts(route: Asked) -> None:
    turn = [{"role": "user", "content": "hi"}]
    said = [[{"role": "assistant", "content": text}] for text in ("calm", "funny")]
    assert route.fit(pairs=[{"prompt": turn, "chosen": said[0], "rejected": said[1]}])["pairs"] == 1


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "pairs", "required"),
        ({"pairs": []}, "pairs", "at least 1"),
        ({"pairs": [VECTOR] * 1025}, "pairs", "1024"),
        ({"pairs": [{"prompt": "hi", "chosen": "calm"}]}, "pairs[0]", "give `prompt`, `chosen` and `rejected`"),
        ({"pairs": [TEXTS[0], VECTOR]}, None, "separate requests"),
        ({"pairs": [VECTOR], "rewards": ["calm", "funny"]}, None, "rewards: it is for pairs with texts"),
        ({"pairs": [VECTOR, {**VECTOR, "rejected_rewards": {"calm": 1}}]}, "pairs[1].rejected_rewards", "the same"),
        ({"pairs": [{"chosen_rewards": {"calm": 1}, "rejected_rewards": {"calm": 0}}]}, "pairs[0].chosen_rewards", "2"),
        (
            {"pairs": [{"chosen_rewards": {"a b": 1, "c": 2}, "rejected_rewards": {"a b": 1, "c": 1}}]},
            "pairs[0]",
            "name",
        ),
        ({"pairs": [{**VECTOR, "chosen_rewards": {"calm": 1e9, "funny": 0}}]}, "pairs", "deviations"),
        ({"pairs": TEXTS, "rewards": ["calm"]}, "rewards", "at least 2"),
        ({"pairs": TEXTS, "rewards": ["calm", "calm"]}, "rewards", "between 2"),
        ({"pairs": TEXTS, "rewards": ["calm", "odd"]}, "rewards[1]", "odd"),
        ({"pairs": [*TEXTS, {**TEXTS[0], "rejected": "word " * CONTEXT}]}, "pairs[15].rejected", "1013 tokens"),
        ({"pairs": [VECTOR], "level": 1}, "level", "0.99"),
        ({"pairs": [VECTOR], "width": 0}, "width", "0.01"),
        ({"pairs": [VECTOR], "preset": "a b"}, "preset", "name"),
        ({"pairs": [VECTOR], "odd": 1}, "odd", "not a field"),
    ],
)
def test_an_error_names_the_field(route: Asked, body: Any, param: str | None, words: str) -> None:
    found = route.error(**body)
    assert (found["param"] or "").startswith(param or ""), found
    assert words in found["message"], found


def test_another_fingerprint_is_a_conflict(route: Asked) -> None:
    assert route.error(409, pairs=TEXTS, fingerprint={"calm": "other"})["param"] == "fingerprint.calm"


def test_numbers_that_are_not_json_are_refused(route: Asked) -> None:
    assert route.post('{"pairs": [{"chosen_rewards": {"a": NaN, "b": 0}}]}').status_code == 400
