"""Infinity under ``/infinity``: its own client unchanged, raw scores raw, white space kept, errors in its shapes."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from infinity_client import Client
from infinity_client.api.default import classify, health, models, rerank
from infinity_client.models import ClassifyInput, ClassifyResult, HTTPValidationError, RerankInput, ReRankResult
from serve.border import served
from serve.counting import CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, native, real_server, rendered, troubled

from tureen_core.calibration import compute_sigmoid
from tureen_serve.inference.engine import FinishedText, Group

QUESTION, ANSWERS = "why do leaves fall in autumn?", ["the wind is lazy", "the quick brown fox", "over the dog"]
UNNAMED = "default/not-specified"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    """infinity-client's own."""
    with Client(base_url=f"{address}/infinity") as found:
        yield found


def text(answer: str) -> str:
    return rendered({"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer})


def test_its_client_reranks(client: Client, address: str) -> None:
    expected = [each["helpful"] for each in native(address, QUESTION, ANSWERS)]
    body = RerankInput(query=QUESTION, documents=ANSWERS, model="helpful", raw_scores=True, return_documents=True)
    found = rerank.sync(client=client, body=body)
    assert isinstance(found, ReRankResult)
    assert [each.relevance_score for each in found.results] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert [each.document for each in found.results] == [ANSWERS[each.index] for each in found.results]
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    assert found.model == "helpful"
    assert str(found.id).startswith("infinity-")


def test_its_client_gets_a_sigmoid_unless_it_asks_for_more(client: Client, address: str) -> None:
    expected = sorted((each["helpful"] for each in native(address, QUESTION, ANSWERS)), reverse=True)
    found = rerank.sync(client=client, body=RerankInput(query=QUESTION, documents=ANSWERS, model="helpful", top_n=2))
    assert isinstance(found, ReRankResult)
    scores = [each.relevance_score for each in found.results]
    assert scores == pytest.approx([compute_sigmoid(each) for each in expected[:2]], abs=1e-5)
    assert [each.document for each in found.results] == [None, None]


def test_its_client_classifies_finished_texts(client: Client, address: str) -> None:
    """One label too, which Infinity refuses, and raw where that is asked, which it ignores."""
    expected = native(address, QUESTION, ANSWERS)
    body = ClassifyInput(input_=[text(each) for each in ANSWERS], model="helpful", raw_scores=True)
    found = classify.sync(client=client, body=body)
    assert isinstance(found, ClassifyResult)
    assert [row[0].score for row in found.data] == pytest.approx([each["helpful"] for each in expected], abs=1e-4)
    both = classify.sync(client=client, body=ClassifyInput(input_=[text(ANSWERS[0])], model="helpful,amusing"))
    assert isinstance(both, ClassifyResult)
    assert {each.label for each in both.data[0]} == {"helpful", "amusing"}
    assert sum(each.score for each in both.data[0]) == pytest.approx(1)
    assert both.data[0][0].score > both.data[0][1].score


def test_its_client_lists_models_and_health(client: Client) -> None:
    listed = models.sync(client=client)
    assert listed is not None
    assert [each.id for each in listed.data] == ["helpful", "amusing"]
    assert listed.data[0].additional_properties == {}
    checked = health.sync(client=client)
    assert checked is not None
    assert checked.to_dict()["unix"] > 0


def test_its_client_reads_our_refusal_of_a_body(client: Client) -> None:
    found = rerank.sync(client=client, body=RerankInput(query="hi", documents=[], model="helpful"))
    assert isinstance(found, HTTPValidationError)
    assert isinstance(found.detail, list)
    assert found.detail[0].loc == ["body", "documents"]


def test_a_text_keeps_its_white_space_and_a_query_is_one_group() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        client.post("/infinity/classify", json={"input": [" calm \n"], "model": "calm"})
        client.post("/infinity/rerank", json={"query": " hi ", "documents": ["a ", "b"], "model": "calm"})
    ((texts, _), (groups, _)) = engine.calls
    assert texts == [FinishedText(" calm \n")]
    (group,) = groups
    assert isinstance(group, Group)
    assert (group.prompt[0]["content"], len(group)) == (" hi ", 2)


def test_a_long_text_is_cut_as_the_reading_says(address: str) -> None:
    (expected,) = native(address, QUESTION, [LONG], truncate=True)
    body = {"query": QUESTION, "documents": [LONG], "model": "helpful", "raw_scores": True}
    found = httpx2.post(f"{address}/infinity/rerank", json=body).json()
    assert found["results"][0]["relevance_score"] == pytest.approx(expected["helpful"], abs=1e-4)


def test_a_model_that_the_client_filled_in_is_the_default() -> None:
    body = {"input": ["calm"], "model": UNNAMED, "raw_scores": True}
    with served(aliases={"default": "calm"}) as client:
        found = client.post("/infinity/classify", json=body)
        listed = client.get("/infinity/models").json()
    assert found.json()["data"] == [[{"score": 1.0, "label": "calm"}]]
    assert [each["id"] for each in listed["data"]] == ["calm", "funny", "default"]
    with served() as client:
        refused = client.post("/infinity/classify", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)


BODIES: dict[str, Any] = {
    "classify": {"input": ["calm"], "model": "calm"},
    "rerank": {"query": "hi", "documents": ["calm"], "model": "calm"},
}


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize(("trouble", "status"), {**TROUBLES, "full": 429}.items())
def test_trouble_is_infinitys_error_and_no_score(trouble: str, status: int, route: str) -> None:
    with troubled(trouble) as client:
        reply = client.post(f"/infinity/{route}", json=BODIES[route])
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["code"] == status


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("classify", {"input": []}, "input"),
    ("classify", {"input": "calm"}, "input"),
    ("classify", {"input": ["calm", 3]}, "input[1]"),
    ("rerank", {"documents": ["calm"]}, "query"),
    ("rerank", {"query": "hi", "documents": ["calm"], "top_n": 0}, "top_n"),
    ("rerank", {"query": "hi", "documents": ["calm"], "model": "calm,funny"}, "model"),
]


@pytest.mark.parametrize(("route", "body", "field"), REFUSED)
def test_a_body_that_does_not_fit_is_fastapis_list(route: str, body: dict[str, Any], field: str) -> None:
    with served() as client:
        reply = client.post(f"/infinity/{route}", json={"model": "calm", **body})
    assert reply.status_code == 422
    assert [each["loc"] for each in reply.json()["detail"]] == [["body", field]]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("classify", {"input": ["calm", "boundless"]}, "input[1]"),
        ("rerank", {"query": "hi", "documents": ["calm", "boundless"]}, "documents[1]"),
    ],
)
def test_a_text_without_a_reward_fails_the_call(route: str, body: dict[str, Any], field: str) -> None:
    with served() as client:
        reply = client.post(f"/infinity/{route}", json={"model": "calm", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (500, field)


def test_a_key_is_asked_for_in_its_shape(tmp_path: Any) -> None:
    with locked(tmp_path) as client:
        for reply in (client.post("/infinity/classify", json=BODIES["classify"]), client.get("/infinity/models")):
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert set(reply.json()) == {"detail"}
        known = {"authorization": f"Bearer {KEY}"}
        assert client.post("/infinity/classify", json=BODIES["classify"], headers=known).status_code == 200
