"""TEI under ``/tei``: its clients unchanged, its sorting, statuses and errors, and no score where there is none."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from serve.border import served
from serve.counting import CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, native, real_server, rendered, troubled
from tei_client.clients.http_client import HttpClient

from tureen_core.calibration import compute_sigmoid
from tureen_core.reading import Cut
from tureen_serve.inference.engine import FinishedText, Group

QUESTION, ANSWERS = "why do leaves fall in autumn?", ["the wind is lazy", "the quick brown fox", "over the dog"]
ASKED = [{"role": "user", "content": QUESTION}]
ONE = {"model": "calm"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


@contextmanager
def tei(address: str, model: str) -> Iterator[HttpClient]:
    """tei-client's own, closed at the end: it does not do that itself."""
    client = HttpClient(f"{address}/tei", params={"model": model})
    with client.client:
        yield client


def text(answer: str) -> str:
    return rendered(*ASKED, {"role": "assistant", "content": answer})


def test_hugging_faces_client_classifies_a_finished_text(address: str) -> None:
    (expected,) = native(address, QUESTION, ANSWERS[:1])
    client = InferenceClient(model=f"{address}/tei/predict?model=helpful", token="none")
    found: Any = client.text_classification(text(ANSWERS[0]))
    assert found.label == "helpful"
    assert found.score == pytest.approx(compute_sigmoid(expected["helpful"]), abs=1e-5)


def test_hugging_faces_client_needs_no_more_than_the_base_address(address: str) -> None:
    client = InferenceClient(model=f"{address}/tei?model=helpful", token="none")
    named = InferenceClient(model=f"{address}/tei/predict?model=helpful", token="none")
    assert client.text_classification(text(ANSWERS[0])) == named.text_classification(text(ANSWERS[0]))


def test_hugging_faces_async_client_gets_the_same(address: str) -> None:
    async def ask() -> list[Any]:
        client = AsyncInferenceClient(model=f"{address}/tei?model=helpful", token="none")
        async with client:
            return list(await asyncio.gather(*(client.text_classification(text(each)) for each in ANSWERS)))

    found = [each.score for each in asyncio.run(ask())]
    expected = [compute_sigmoid(each["helpful"]) for each in native(address, QUESTION, ANSWERS)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_hugging_faces_client_sees_health_and_info(address: str) -> None:
    client = InferenceClient(model=f"{address}/tei", provider="hf-inference", token="none")
    assert client.health_check()
    with pytest.raises(HfHubHTTPError, match="404"):  # two rewards, and it cannot name one
        client.get_endpoint_info()


def test_tei_client_reranks_raw_and_not(address: str) -> None:
    expected = [each["helpful"] for each in native(address, QUESTION, ANSWERS)]
    with tei(address, "helpful") as client:
        raw = client.rerank(QUESTION, ANSWERS, raw_scores=True, return_text=True).ranks
        plain = client.rerank(QUESTION, ANSWERS).ranks
    assert [each.score for each in raw] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert [each.text for each in raw] == [ANSWERS[each.index] for each in raw]
    assert [expected[each.index] for each in raw] == sorted(expected, reverse=True)
    for one, other in zip(plain, raw, strict=True):
        assert (one.index, one.text) == (other.index, None)
        assert one.score == pytest.approx(compute_sigmoid(other.score), abs=1e-5)


def test_tei_client_classifies_by_several_rewards(address: str) -> None:
    (expected,) = native(address, QUESTION, ANSWERS[:1])
    with tei(address, "helpful,amusing") as client:
        (pair,) = client.classify((QUESTION, ANSWERS[0]), raw_scores=True)
        _, alone = client.classify(["why?", text(ANSWERS[0])], raw_scores=True)
        (odds,) = client.classify([(QUESTION, ANSWERS[0])])
    assert {each.label: each.score for each in pair.scores} == pytest.approx(expected, abs=1e-4)
    assert pair.scores[0].score > pair.scores[1].score
    for one, other in zip(pair.scores, alone.scores, strict=True):
        assert one.label == other.label
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert sum(each.score for each in odds.scores) == pytest.approx(1)


def test_info_tells_the_limits_and_what_kind_of_model_it_is(address: str) -> None:
    with tei(address, "helpful") as client:
        one = client.info()
    with tei(address, "helpful,amusing") as client:
        both = client.info()
    assert (one.server_model_type.value, one.max_input_length, one.server_model_dtype) == ("reranker", 256, "float32")
    assert both.server_model_type.value == "classifier"
    assert both.server_model_sha is not None
    assert one.server_model_sha == both.server_model_sha.split(",")[0]


@pytest.mark.parametrize("direction", [None, "Left", "right"])
def test_a_long_text_is_cut_from_the_side_that_is_named(address: str, direction: str | None) -> None:
    answer = LONG + "fox"
    body = {"query": QUESTION, "texts": [answer], "raw_scores": True, "truncation_direction": direction}
    reply = httpx2.post(f"{address}/tei/rerank", params={"model": "helpful"}, json=body)
    (expected,) = native(address, QUESTION, [answer], truncate=True)
    same = reply.json()[0]["score"] == pytest.approx(expected["helpful"], abs=1e-4)
    assert same is (direction != "right")
    assert reply.headers["x-compute-tokens"] == "256"


def test_a_pair_is_no_list_of_two_texts() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        pair = client.post("/tei/predict", params=ONE, json={"inputs": ["hi", "calm"]}).json()
        batch = client.post("/tei/predict", params=ONE, json={"inputs": [["hi"], ["hi", "calm"]]}).json()
        alone = client.post("/tei/predict", params=ONE, json={"inputs": ["calm calm"], "raw_scores": True}).json()
    assert pair == [{"score": compute_sigmoid(1.0), "label": "calm"}]
    assert batch == [[{"score": 0.5, "label": "calm"}], pair]
    assert alone == [{"score": 2.0, "label": "calm"}]
    read: Any = engine.calls[1][0]
    assert read[0] == FinishedText("hi", cut=Cut())
    assert read[1].prompt == [{"role": "user", "content": "hi"}]


def test_a_query_is_one_group() -> None:
    engine = CountingEngine()
    body = {"query": "hi", "texts": ["calm", "", "calm calm"], "raw_scores": True}
    with served(engine) as client:
        reply = client.post("/tei/rerank", params=ONE, json=body)
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    assert len(group) == 3
    assert [each["index"] for each in reply.json()] == [2, 0, 1]
    assert reply.headers["x-compute-characters"] == str(3 * len("hi") + len("calm") + len("calm calm"))


def test_what_saturates_keeps_its_order() -> None:
    """A sigmoid of 40 and of 50 is 1 either way."""
    texts = ["calm " * 40, "calm " * 50, "calm " * 45]
    with served() as client:
        found = client.post("/tei/rerank", params=ONE, json={"query": "hi", "texts": texts}).json()
    assert [each["index"] for each in found] == [1, 2, 0]
    assert {each["score"] for each in found} == {1.0}


ERRORS = {"dead": 503, "dying": 503, "full": 429, "late": 504, "broken": 424}
KINDS = {"dead": "Unhealthy", "dying": "Unhealthy", "full": "Overloaded", "late": "Overloaded", "broken": "Backend"}
BODIES: dict[str, Any] = {"predict": {"inputs": "calm"}, "rerank": {"query": "hi", "texts": ["calm"]}}


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_teis_error_and_no_score(trouble: str, route: str) -> None:
    with troubled(trouble) as client:
        reply = client.post(f"/tei/{route}", params=ONE, json=BODIES[route])
    assert reply.status_code == ERRORS[trouble]
    assert reply.json().keys() == {"error", "error_type"}
    assert reply.json()["error_type"] == KINDS[trouble]
    assert "of the inside" not in reply.text
    assert ("retry-after" in reply.headers) is (ERRORS[trouble] in (429, 503))


REFUSED: list[tuple[str, Any, int, str, str]] = [
    ("predict", {"inputs": ""}, 400, "Empty", "inputs: `inputs` cannot be empty"),
    ("predict", {"inputs": [["a"], ["", ""]]}, 400, "Empty", "inputs[1]"),
    ("rerank", {"query": "hi", "texts": []}, 400, "Empty", "`texts` cannot be empty"),
    ("predict", {"inputs": []}, 422, "Validation", "inputs"),
    ("predict", {"inputs": ["a", "b", "c"]}, 422, "Validation", "inputs"),
    ("predict", {"inputs": [["a"], "b"]}, 422, "Validation", "inputs"),
    ("predict", {"inputs": 3}, 422, "Validation", "inputs"),
    ("predict", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "truncation_direction"),
    ("rerank", {"query": "hi"}, 422, "Validation", "texts: is required"),
    ("predict", {"inputs": [["calm"], ["boundless"]]}, 424, "Backend", "inputs[1]: the reward calm"),
    ("rerank", {"query": "hi", "texts": ["calm", "boundless"]}, 424, "Backend", "texts[1]"),
    ("predict", {"inputs": LONG, "truncate": False}, 413, "Validation", "inputs: the text has"),
    ("predict", {"inputs": [["a"], ["hi", LONG]], "truncate": False}, 413, "Validation", "inputs[1]: the text has"),
    ("rerank", {"query": "hi", "texts": [LONG], "truncate": False}, 413, "Validation", "texts[0]"),
]


@pytest.mark.parametrize(("route", "body", "status", "kind", "words"), REFUSED)
def test_what_cannot_be_scored_is_refused_as_tei_does(
    route: str, body: Any, status: int, kind: str, words: str
) -> None:
    with served() as client:
        reply = client.post(f"/tei/{route}", params=ONE, json=body)
    assert (reply.status_code, reply.json()["error_type"]) == (status, kind)
    assert words in reply.json()["error"]


@pytest.mark.parametrize("body", [{"inputs": LONG}, {"inputs": LONG, "truncate": None}])
def test_what_is_too_long_is_cut_unless_told_not_to(body: Any) -> None:
    with served() as client:
        assert client.post("/tei/predict", params=ONE, json=body).status_code == 200


def test_an_unknown_model_and_a_broken_body_have_teis_shape_too() -> None:
    with served() as client:
        replies = [
            client.post("/tei/predict", params={"model": "grim"}, json={"inputs": "a"}),
            client.post("/tei/predict", content="{", headers={"content-type": "application/json"}),
            client.post("/tei/rerank", params={"model": "calm,funny"}, json={"query": "a", "texts": ["b"]}),
        ]
    assert [reply.status_code for reply in replies] == [404, 400, 422]
    assert all(reply.json()["error_type"] == "Validation" for reply in replies)


def test_health_has_no_body_and_says_when_it_is_bad() -> None:
    with served() as client:
        assert (reply := client.get("/tei/health")).status_code == 200
        assert reply.content == b""
    with troubled("dead") as client:
        assert client.get("/tei/health").json()["error_type"] == "Unhealthy"


def test_a_key_is_asked_for_and_its_refusal_is_empty(tmp_path: Any) -> None:
    with locked(tmp_path) as client:
        for reply in (client.post("/tei/predict", json={"inputs": "a"}), client.get("/tei/info")):
            assert (reply.status_code, reply.content) == (401, b"")
        known = {"authorization": f"Bearer {KEY}"}
        assert client.post("/tei/predict", params=ONE, json={"inputs": "a"}, headers=known).status_code == 200
