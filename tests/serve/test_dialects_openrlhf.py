"""OpenRLHF's route: three generations of answers, finished texts, and no reward where there is none."""

import math

import pytest
from serve.border import served
from serve.counting import CountingEngine

from tureen_serve.inference.engine import FinishedText

ONE = {"model": "calm"}


def test_all_three_generations_find_what_they_read() -> None:
    body = {"query": ["calm calm words", "funny"], "prompts": ["a", "b"], "labels": [None, "42"]}
    with served() as client:
        reply = client.post("/get_reward", json=body, params=ONE)
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["rewards"] == [2.0, 0.0]
    assert all(0 < score < 1 for score in answer["scores"])
    assert answer["scores"][0] > answer["scores"][1]
    assert answer["extra_logs"]["calm"] == [2.0, 0.0]
    assert {len(values) for values in answer["extra_logs"].values()} == {2}


def test_an_empty_batch_is_answered_with_empty_lists() -> None:
    with served() as client:
        answer = client.post("/get_reward", json={"query": [], "prompts": [], "labels": []}, params=ONE).json()
    assert answer["rewards"] == answer["scores"] == []


def test_the_oldest_client_sends_only_texts() -> None:
    with served() as client:
        assert client.post("/get_reward", json={"query": "calm"}, params=ONE).json()["rewards"] == [1.0]


def test_texts_meet_no_template_and_lose_their_padding() -> None:
    engine = CountingEngine()
    renderer = engine.rewards["calm"].renderer
    pad = renderer.tokenizer.pad_token
    text = f"{pad}{pad}<|im_start|>user\nhi<|im_end|>{pad}"
    with served(engine) as client:
        client.post("/get_reward", json={"query": [text]}, params=ONE)
    (((given,), _),) = engine.calls
    assert given == FinishedText(text)
    assert renderer.render_text(text).ids == renderer.render_text("<|im_start|>user\nhi<|im_end|>").ids


def test_a_mix_is_one_reward() -> None:
    with served() as client:
        mixed = client.post("/get_reward", json={"query": ["calm funny"]}, params={"model": "calm=1,funny=3"}).json()
        both = client.post("/get_reward", json={"query": ["calm funny"]}, params={"model": "calm,funny"})
        plain = client.post("/get_reward?model=calm=0.25+funny=0.75", json={"query": ["calm funny"]}).json()
        cut = client.post("/get_reward?model=calm=0.25", json={"query": ["calm funny"]})
    assert len(mixed["rewards"]) == 1
    assert plain == mixed
    assert (cut.status_code, "add up to 0.25" in cut.json()["error"]["message"]) == (422, True)
    assert mixed["scores"][0] == pytest.approx(1 / (1 + math.exp(-mixed["rewards"][0])))
    assert both.status_code == 422
    assert "name one, or a weighted mix as calm=0.5+funny=0.5" in both.json()["error"]["message"]


@pytest.mark.parametrize(("text", "status"), [("boundless", 500), ("a\\ud800", 422)])
def test_a_text_without_a_reward_fails_the_call(text: str, status: int) -> None:
    content = f'{{"query": ["calm", "{text}"]}}'
    with served() as client:
        reply = client.post("/get_reward", content=content, params=ONE, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == "query[1]"
    assert "rewards" not in reply.json()
