"""LlamaFactory's score route: its shapes, texts that meet no template, and errors as its FastAPI words them.

The fields are those of ``llamafactory.api.protocol`` 0.9.5; it has no client of its own.
"""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, native, real_server, rendered, troubled

from tureen_core.reading import Cut
from tureen_serve.inference.engine import FinishedText

ROUTE = "/llamafactory/v1/score/evaluation"
QUESTION, ANSWERS = "why do leaves fall in autumn?", ["the wind is lazy", "the quick brown fox"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


def text(answer: str) -> str:
    return rendered({"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer})


@pytest.mark.parametrize("bare", [False, True], ids=["as rendered", "without the last new line"])
def test_scores_are_the_rewards_of_the_same_conversations(address: str, bare: bool) -> None:
    texts = [text(answer).rstrip() if bare else text(answer) for answer in ANSWERS]
    body = {"model": "helpful", "messages": texts}
    reply = httpx2.post(f"{address}{ROUTE}", json=body).json()
    expected = [each["helpful"] for each in native(address, QUESTION, ANSWERS)]
    assert reply["scores"] == pytest.approx(expected, abs=1e-4)
    assert set(reply) == {"id", "object", "model", "scores"}
    assert (reply["object"], reply["model"]) == ("score.evaluation", "helpful")
    assert reply["id"].startswith("scoreval-")


def test_a_long_text_is_cut_as_the_reading_says(address: str) -> None:
    """LlamaFactory cuts as well; the rest is what a conversation's rest is."""
    reply = httpx2.post(f"{address}{ROUTE}", json={"model": "helpful", "messages": [text(LONG)]}).json()
    (expected,) = native(address, QUESTION, [LONG], truncate=True)
    assert reply["scores"] == [pytest.approx(expected["helpful"], abs=1e-4)]


@pytest.mark.parametrize(("given", "length"), [(None, None), (0, None), (7, 7)])
def test_a_length_is_the_callers_or_the_models_own(given: int | None, length: int | None) -> None:
    engine = CountingEngine()
    with served(engine) as client:
        client.post(ROUTE, json={"model": "calm", "messages": ["calm"], "max_length": given})
    (((found,), _),) = engine.calls
    assert found == FinishedText("calm", cut=Cut(length=length))


def test_a_model_may_be_a_mix() -> None:
    with served() as client:
        found = client.post(ROUTE, json={"model": "calm=1,funny=1", "messages": ["calm", "calm funny"]}).json()
        both = client.post(ROUTE, json={"model": "calm,funny", "messages": ["calm"]})
    assert found["scores"][0] < found["scores"][1]
    assert (both.status_code, both.json()["detail"][0]["loc"]) == (422, ["body", "model"])


@pytest.mark.parametrize(("trouble", "status"), TROUBLES.items())
def test_trouble_is_an_error_and_no_score(trouble: str, status: int) -> None:
    with troubled(trouble) as client:
        reply = client.post(ROUTE, json={"model": "calm", "messages": ["calm"]})
    assert reply.status_code == status
    assert set(reply.json()) == {"detail"}
    assert isinstance(reply.json()["detail"], str)
    assert ("retry-after" in reply.headers) is (status == 503)


REFUSED: list[tuple[dict[str, Any], list[Any]]] = [
    ({"model": "calm"}, ["body", "messages"]),
    ({"model": "calm", "messages": "calm"}, ["body", "messages"]),
    ({"model": "calm", "messages": ["calm", 3]}, ["body", "messages[1]"]),
    ({"messages": ["calm"]}, ["body", "model"]),
    ({"model": "calm", "messages": ["calm"], "max_length": -1}, ["body", "max_length"]),
]


@pytest.mark.parametrize(("body", "place"), REFUSED)
def test_a_body_that_does_not_fit_is_fastapis_list(body: dict[str, Any], place: list[Any]) -> None:
    with served() as client:
        reply = client.post(ROUTE, json=body)
    (found,) = reply.json()["detail"]
    assert (reply.status_code, found["loc"]) == (422, place)
    assert set(found) == {"loc", "msg", "type"}


def test_other_errors_are_sentences_that_name_the_field() -> None:
    with served() as client:
        empty = client.post(ROUTE, json={"model": "calm", "messages": []})
        unknown = client.post(ROUTE, json={"model": "gpt-3.5-turbo", "messages": ["calm"]})
        nowhere = client.post(ROUTE, json={"model": "calm", "messages": ["calm", "boundless"]})
    assert (empty.status_code, empty.json()) == (400, {"detail": "messages: send at least one text"})
    assert (unknown.status_code, unknown.json()["detail"][:14]) == (404, "model: no rewa")
    assert nowhere.status_code == 500
    assert nowhere.json() == {"detail": "messages[1]: the reward calm of this text is not finite"}


def test_a_key_is_asked_for_in_the_same_shape(tmp_path: Any) -> None:
    body = {"model": "calm", "messages": ["calm"]}
    with locked(tmp_path) as client:
        refused = client.post(ROUTE, json=body)
        assert refused.status_code == 401
        assert refused.json()["detail"].startswith("send a key")
        assert refused.headers["www-authenticate"] == "Bearer"
        known = client.post(ROUTE, json=body, headers={"authorization": f"Bearer {KEY}"})
        assert known.json()["scores"] == [1.0]
