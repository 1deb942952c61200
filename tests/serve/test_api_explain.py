"""``/v1/score/explain``: every number of it is one that ``/v1/score`` gives for a text that can be told."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, CountingEngine
from serve.scrapes import sample
from starlette.testclient import TestClient

from tureen_core.turns import Messages
from tureen_serve.api import explain
from tureen_serve.api.reward_items import read_answer
from tureen_serve.inference.text_limits import TextLimits
from tureen_serve.runtimes.catalogue import Reward

ANSWER = "calm funny, calm. So funny funny! Ends calm"
PROMPT = "How are you?"


class Explained:
    """The route of one server."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def post(self, body: Any) -> Any:
        return self.client.post("/v1/score/explain", json={"prompt": PROMPT, "answer": ANSWER, **body})

    def ask(self, **body: Any) -> Any:
        reply = self.post(body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def error(self, status: int = 422, **body: Any) -> Any:
        reply = self.post(body)
        assert reply.status_code == status, reply.text
        return reply.json()["error"]

    def score(self, *answers: str) -> list[Any]:
        body = {"items": [{"prompt": PROMPT, "candidates": list(answers)}]}
        reply = self.client.post("/v1/score", json=body)
        assert reply.status_code == 200, reply.text
        return [each["scores"] for each in reply.json()["data"][0]["candidates"]]


@pytest.fixture(scope="module")
def route() -> Iterator[Explained]:
    with served() as client:
        yield Explained(client)


def calibrated(scores: Any) -> dict[str, float]:
    return {name: score["calibrated"] for name, score in scores.items()}


@pytest.mark.parametrize("by", ["tokens", "words", "sentences"])
def test_prefixes_are_the_running_score(route: Explained, by: str) -> None:
    found = route.ask(method="prefixes", by=by)
    ends = [each["end"] for each in found["segments"]]
    whole, empty, *running = route.score(ANSWER, "", *(ANSWER[:end] for end in ends))
    assert (found["method"], found["by"], found["scores"], found["empty"]) == ("prefixes", by, whole, empty)
    assert [each["scores"] for each in found["segments"]] == running
    steps = [calibrated(each) for each in (empty, *running)]
    for before, after, segment in zip(steps, steps[1:], found["segments"], strict=False):
        assert segment["changes"] == pytest.approx({name: after[name] - before[name] for name in after})


@pytest.mark.parametrize("by", ["words", "sentences"])
def test_omissions_leave_each_segment_out(route: Explained, by: str) -> None:
    found = route.ask(method="omissions", by=by)
    spans = [(each["start"], each["end"]) for each in found["segments"]]
    whole, *others = route.score(ANSWER, *(ANSWER[:start] + ANSWER[end:] for start, end in spans))
    assert (found["scores"], found["empty"]) == (whole, None)
    for segment, other in zip(found["segments"], others, strict=True):
        assert segment["scores"] == other
        left = calibrated(other)
        assert segment["changes"] == pytest.approx({each: calibrated(whole)[each] - left[each] for each in left})


def test_the_segments_are_the_answer_and_at_most_so_many(route: Explained) -> None:
    answer = "calm 🦊\u202e \x1b[31m funny " * 3
    for most in (1, 7, 256):
        found = route.ask(answer=answer, most=most)["segments"]
        assert "".join(each["text"] for each in found) == answer
        assert all(each["text"] == answer[each["start"] : each["end"]] for each in found)
        assert 1 <= len(found) <= most
    assert route.error(most=257)["param"] == "most"


def pooled_by_mean(given: Reward) -> Reward:
    manifest = given.artifact.manifest
    reading = manifest.reading.model_copy(update={"pooling": "mean"})
    return replace(given, artifact=replace(given.artifact, manifest=manifest.model_copy(update={"reading": reading})))


def test_the_method_follows_where_the_rewards_are_read(route: Explained) -> None:
    found = route.ask()
    assert (found["method"], found["by"]) == ("prefixes", "tokens")
    engine = CountingEngine()
    engine.rewards = {**engine.rewards, "calm": pooled_by_mean(engine.rewards["calm"])}
    with served(engine) as client:
        mean = Explained(client)
        found = mean.ask()
        assert (found["method"], found["by"], len(found["segments"])) == ("omissions", "sentences", 3)
        assert mean.ask(rewards=["funny"])["method"] == "prefixes"
        assert mean.ask(method="prefixes")["by"] == "tokens"


def test_named_rewards_only(route: Explained) -> None:
    found = route.ask(rewards=["calm"], fingerprint="calm-fingerprint")
    assert (set(found["scores"]), found["fingerprint"]) == ({"calm"}, {"calm": "calm-fingerprint"})
    assert all(set(each["changes"]) == {"calm"} for each in found["segments"])


def test_a_message_list_is_a_prompt_too(route: Explained) -> None:
    assert route.ask(prompt=[{"role": "user", "content": PROMPT}])["segments"] == route.ask()["segments"]


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"rewards": ["none"]}, 422, "rewards[0]", "unknown_reward"),
        ({"rewards": ["duel"]}, 422, "rewards[0]", "wrong_input"),
        ({"rewards": ["proof"]}, 422, "rewards[0]", "wrong_input"),
        ({"answer": ""}, 422, "answer", None),
        ({"method": "gradients"}, 422, "method", None),
        ({"segments": 3}, 422, "segments", None),
        ({"fingerprint": "other"}, 409, "fingerprint", None),
        ({"answer": "calm " * CONTEXT}, 422, "answer", "context_length_exceeded"),
    ],
)
def test_what_cannot_be_explained_is_refused(body: Any, status: int, param: str | None, code: str | None) -> None:
    with served(CountingEngine("calm", "duel", "proof")) as client:
        error = Explained(client).error(status, **body)
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code


def test_a_long_answer_is_cut_if_asked(route: Explained) -> None:
    found = route.ask(answer="calm " * CONTEXT, truncate=True, by="words", most=4)
    assert found["truncated"]


def test_the_work_is_bounded() -> None:
    engine = CountingEngine()
    engine.limits = TextLimits(text_bytes=2000, request_bytes=50_000)
    with served(engine) as client:
        bounded = Explained(client)
        assert bounded.error(413, answer="x" * 2001)["param"] == "answer"
        error = bounded.error(413, answer="calm " * 150, most=256, method="omissions", by="words")
        assert error["code"] == "request_too_large"


def test_no_more_texts_are_made_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def read(text: str) -> Messages:
        made.append(text)
        return read_answer(text)

    monkeypatch.setattr(explain, "read_answer", read)
    engine = CountingEngine()
    engine.limits = TextLimits(text_bytes=2000, request_bytes=5000)
    with served(engine) as client:
        body = {"answer": "calm " * 200, "method": "omissions", "by": "words", "most": 200}
        assert Explained(client).error(413, **body)["code"] == "request_too_large"
    assert 2 < len(made) < 7


def test_pieces_of_an_answer_are_no_answers_in_the_metrics() -> None:
    with served() as client:
        Explained(client).ask(rewards=["calm"], by="words")
        metrics = client.get("/metrics").text
    texts = 1 + len(ANSWER.split())
    assert sample(metrics, "tureen_texts_total", model="calm", outcome="scored") == texts
    assert sample(metrics, "tureen_tokens_total", model="calm") > texts
    assert sample(metrics, "tureen_score_count") == 0
