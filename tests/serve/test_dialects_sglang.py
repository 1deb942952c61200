"""SGLang's routes, its native one and its OpenAI-like ones: what verl reads, and no score without a reward."""

import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.border import served
from serve.counting import RENDERER
from serve.foreign import LONG, TROUBLES, locked, troubled
from starlette.testclient import TestClient

from tureen_serve.inference.engine import FinishedText, Group

NATIVE, EMBEDDINGS, SCORE, RERANK = (
    f"/sglang/{each}" for each in ("classify", "v1/embeddings", "v1/score", "v1/rerank")
)
PATHS = [NATIVE, EMBEDDINGS, SCORE, RERANK]
META = {"id", "finish_reason", "prompt_tokens", "weight_version", "num_retractions", "e2e_latency"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of the counting engine."""
    with served() as found:
        yield found


def about(path: str, text: str, **options: Any) -> dict[str, Any]:
    """A body of any route about one text."""
    bodies: dict[str, dict[str, Any]] = {
        NATIVE: {"text": [text]},
        EMBEDDINGS: {"input": [text]},
        SCORE: {"query": "", "items": [text]},
        RERANK: {"query": "hi", "documents": [text]},
    }
    return {**bodies[path], "lora_path": "calm", **options}


def post(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json={"lora_path": "calm", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def told(path: str, reply: Any) -> dict[str, Any]:
    """The error of a reply that holds nothing else."""
    body: dict[str, Any] = reply.json()
    if path == NATIVE:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message"}
        return {"param": None, **body["error"]}
    assert set(body) == {"object", "message", "type", "param", "code"}
    assert (body["object"], body["code"]) == ("error", reply.status_code)
    return body


def asked(client: TestClient, path: str, **body: Any) -> list[Group | FinishedText]:
    """What the engine was asked."""
    post(client, path, **body)
    groups: list[Group | FinishedText] = client.app.state.server.engine.calls[-1][0]  # type: ignore[attr-defined]
    return groups


# --------------------------------------------------------------------------- /v1/embeddings


def test_verl_reads_the_last_number_of_the_last_embedding(client: TestClient) -> None:
    reply = client.post(EMBEDDINGS, json={"model": "/ckpt/calm", "input": "calm calm words"})
    answer = reply.json()
    assert answer["data"][-1]["embedding"][-1] == 2.0
    tokens = len(RENDERER.render_conversation([{"role": "assistant", "content": "calm calm words"}]).ids)
    assert answer == {
        "data": [{"embedding": [2.0], "index": 0, "object": "embedding"}],
        "model": "calm",
        "object": "list",
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "reasoning_tokens": 0,
            "completion_tokens_details": None,
        },
    }


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("calm", [FinishedText("calm")]),
        (["calm", "funny"], [FinishedText("calm"), FinishedText("funny")]),
        ([5, 6], [FinishedText([5, 6])]),
        ([[5], [6]], [FinishedText([5]), FinishedText([6])]),
    ],
)
def test_texts_and_ids_meet_no_template(client: TestClient, given: Any, read: list[FinishedText]) -> None:
    assert asked(client, EMBEDDINGS, input=given) == read


def test_columns_in_base64_are_little_endian(client: TestClient) -> None:
    body = {"model": "calm,funny", "input": ["calm calm funny"], "encoding_format": "base64"}
    (row,) = client.post(EMBEDDINGS, json=body).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(row["embedding"])) == (2.0, 1.0)


@pytest.mark.parametrize("model", ["calm", "base-model:calm", "s3://bucket/calm", "/ckpt/calm"])
def test_an_adapter_named_behind_its_base(client: TestClient, model: str) -> None:
    assert client.post(EMBEDDINGS, json={"model": model, "input": "calm"}).json()["model"] == "calm"


@pytest.mark.parametrize(
    ("path", "text"), [("embeddings", {"input": "calm"}), ("score", {"query": "q", "items": ["calm"]})]
)
def test_a_body_without_a_model_takes_that_of_the_url(client: TestClient, path: str, text: dict[str, Any]) -> None:
    for model, columns in (("calm", 1), ("calm+funny", 2)):
        found = client.post(f"/sglang/v1/{path}", params={"model": model}, json=text).json()
        assert len(found["data"][0]["embedding"] if path == "embeddings" else found["scores"][0]) == columns
    named = {**text, "model": "calm"}
    found = client.post(f"/sglang/v1/{path}", params={"model": "calm+funny"}, json=named).json()
    assert len(found["data"][0]["embedding"] if path == "embeddings" else found["scores"][0]) == 1


def test_sglangs_default_model_is_the_alias() -> None:
    with served(aliases={"default": "funny"}) as client:
        assert client.post(EMBEDDINGS, json={"input": "funny"}).json()["model"] == "funny"
        assert client.post(NATIVE, json={"text": "funny"}).json()["embedding"] == [1.0]


# --------------------------------------------------------------------------- /classify


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_one_text_is_one_object_and_several_are_a_list(client: TestClient, method: str) -> None:
    one = client.request(method, NATIVE, json={"text": "calm calm", "rid": "mine"}, params={"model": "calm"}).json()
    many = client.request(
        method, NATIVE, json={"text": ["calm", "x"], "rid": "us", "lora_path": ["calm", "calm"]}
    ).json()
    assert one["embedding"] == [2.0]
    assert set(one["meta_info"]) == META
    assert (one["meta_info"]["id"], one["meta_info"]["weight_version"]) == ("mine", "calm-fingerprint")
    assert [each["embedding"] for each in many] == [[1.0], [0.0]]
    assert [each["meta_info"]["id"] for each in many] == ["us_0", "us_1"]


def test_a_list_of_one_is_still_a_list(client: TestClient) -> None:
    assert isinstance(post(client, NATIVE, text=["calm"]), list)
    assert isinstance(post(client, NATIVE, input_ids=[[5, 6]], rid=["a"]), list)
    assert isinstance(post(client, NATIVE, input_ids=[5, 6]), dict)


@pytest.mark.parametrize(("priority", "band"), [(None, "default"), (0, "default"), (3, "interactive"), (-1, "batch")])
def test_a_higher_priority_goes_first(client: TestClient, priority: int, band: str, monkeypatch: Any) -> None:
    engine = client.app.state.server.engine  # type: ignore[attr-defined]
    seen = []
    score = engine.score

    async def watched(*given: Any, **options: Any) -> Any:
        seen.append(options["priority"])
        return await score(*given, **options)

    monkeypatch.setattr(engine, "score", watched)
    for path in PATHS:
        post(client, path, **about(path, "calm", priority=priority))
    assert seen == [band] * 4


# --------------------------------------------------------------------------- /v1/score


def test_items_continue_their_query(client: TestClient) -> None:
    answer = post(client, SCORE, model="calm", query="calm ", items=["calm", "x"])
    assert answer["scores"] == [[2.0], [1.0]]
    assert (answer["object"], answer["model"]) == ("scoring", "calm")
    assert (answer["pooled_hidden_states"], answer["token_logprobs"]) == (None, None)
    assert asked(client, SCORE, query="q", items=["a", "b"]) == [FinishedText("qa"), FinishedText("qb")]
    assert asked(client, SCORE, query="q", items="a", item_first=True) == [FinishedText("aq")]
    assert asked(client, SCORE, query=[1, 2], items=[[3], [4]]) == [FinishedText([1, 2, 3]), FinishedText([1, 2, 4])]
    assert asked(client, SCORE, items=["a"], label_token_ids=[1]) == [FinishedText("a")]


def test_no_items_have_no_scores(client: TestClient) -> None:
    assert post(client, SCORE, query="q", items=[])["scores"] == []


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1e-300])
def test_a_softmax_over_columns(client: TestClient, temperature: float) -> None:
    body = {"model": "calm,funny", "query": "", "items": ["calm calm funny"], "apply_softmax": True}
    ((calm, funny),) = client.post(SCORE, json={**body, "temperature": temperature}).json()["scores"]
    assert calm == pytest.approx(1 / (1 + math.exp(-min(1 / temperature, 700))))
    assert calm + funny == pytest.approx(1)


# --------------------------------------------------------------------------- /v1/rerank


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_documents_are_ranked_best_first(client: TestClient, method: str) -> None:
    body = {"query": "hi", "documents": ["x", "calm calm", "calm"], "lora_path": "calm"}
    answer = client.request(method, RERANK, json=body).json()
    assert [(row["index"], row["score"], row["document"]) for row in answer] == [
        (1, 2.0, "calm calm"),
        (2, 1.0, "calm"),
        (0, 0.0, "x"),
    ]
    assert all(set(row["meta_info"]) == META for row in answer)
    (best,) = client.request(method, RERANK, json={**body, "top_n": 1, "return_documents": False}).json()
    assert set(best) == {"score", "index", "meta_info"}


def test_a_query_with_its_documents_is_one_conversation_each(client: TestClient) -> None:
    (group,) = asked(client, RERANK, query="hi", documents=["a", "b"])
    answers = [[{"role": "assistant", "content": text}] for text in ("a", "b")]
    assert group == Group(answers, [{"role": "user", "content": "hi"}])


# --------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (EMBEDDINGS, {}, "input"),
        (EMBEDDINGS, {"input": ""}, "input"),
        (EMBEDDINGS, {"input": " \n"}, "input"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": ["calm", " "]}, "input"),
        (EMBEDDINGS, {"input": ["calm", 3]}, "input[1]"),
        (EMBEDDINGS, {"input": [{"text": "calm"}]}, "input[0]"),
        (EMBEDDINGS, {"input": ["calm", LONG]}, "input[1]"),
        (EMBEDDINGS, {"input": LONG}, "input"),
        (EMBEDDINGS, {"input": "calm", "encoding_format": "hex"}, "encoding_format"),
        (EMBEDDINGS, {"input": "calm", "dimensions": 8}, "dimensions"),
        (EMBEDDINGS, {"input": "calm", "lora_path": ["calm", "funny"]}, "lora_path"),
        (NATIVE, {}, None),
        (NATIVE, {"text": "calm", "input_ids": [5]}, None),
        (NATIVE, {"text": []}, None),
        (NATIVE, {"text": [["a", "pair"]]}, None),
        (NATIVE, {"text": "calm", "image_data": "x.png"}, None),
        (NATIVE, {"text": LONG}, None),
        (SCORE, {"query": "q"}, "items"),
        (SCORE, {"query": "q", "items": [[5]]}, None),
        (SCORE, {"query": [5], "items": ["a"]}, None),
        (SCORE, {"query": "q", "items": ["a"], "temperature": 0}, "temperature"),
        (SCORE, {"query": "q", "items": ["a"], "temperature": 2}, None),
        (SCORE, {"query": "q", "items": ["a"], "score_extraction_token": "<s>"}, "score_extraction_token"),
        (SCORE, {"query": "q", "items": ["a"], "return_pooled_hidden_states": True}, "return_pooled_hidden_states"),
        (SCORE, {"query": "q", "items": ["a"], "return_token_logprobs": True}, "return_token_logprobs"),
        (SCORE, {"query": "q", "items": ["a", LONG]}, "items[1]"),
        (RERANK, {"query": "", "documents": ["a"]}, "query"),
        (RERANK, {"query": "q", "documents": []}, "documents"),
        (RERANK, {"query": "q", "documents": ["a", " "]}, "documents"),
        (RERANK, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        (RERANK, {"query": "q", "documents": ["a"], "instruct": "be strict"}, "instruct"),
        (RERANK, {"query": "q", "documents": ["a", LONG]}, "documents[1]"),
        (RERANK, {"query": "q", "documents": ["a"], "lora_path": "calm,funny"}, "model"),
    ],
)
def test_what_cannot_be_read_is_a_400(client: TestClient, path: str, body: dict[str, Any], param: str | None) -> None:
    reply = client.post(path, json={"lora_path": "calm", **body})
    assert reply.status_code == 400, reply.text
    assert told(path, reply)["param"] == param
    assert told(path, reply)["message"]


def test_a_native_error_names_its_field_in_its_sentence(client: TestClient) -> None:
    reply = client.post(NATIVE, json={"text": ["calm", LONG], "lora_path": "calm"})
    assert told(NATIVE, reply)["message"].startswith("text[1]: the text has 2")


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_reward_is_not_found(client: TestClient, path: str) -> None:
    reply = client.post(path, json=about(path, "calm", lora_path="nobody"))
    assert reply.status_code == 404
    assert "no reward is called 'nobody'" in told(path, reply)["message"]


@pytest.mark.parametrize("path", PATHS)
def test_bodies_that_are_no_json(client: TestClient, path: str) -> None:
    for content, kind in ((b"{", "application/json"), (b"{}", "text/plain")):
        reply = client.post(path, content=content, headers={"content-type": kind})
        assert reply.status_code == 400
        assert told(path, reply)["message"]


def test_what_is_not_served_says_so(client: TestClient) -> None:
    assert client.post("/sglang/v1/classify", json={"input": "calm"}).status_code == 404


# --------------------------------------------------------------------------- no score where there is none


@pytest.mark.parametrize(("trouble", "status"), TROUBLES.items())
def test_a_server_in_trouble_answers_with_an_error(trouble: str, status: int) -> None:
    with troubled(trouble) as client:
        for path in PATHS:
            reply = client.post(path, json=about(path, "calm"))
            assert reply.status_code == status
            assert told(path, reply)["message"]
            assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize("path", PATHS)
def test_a_reward_that_is_not_finite_is_an_error(client: TestClient, path: str) -> None:
    reply = client.post(path, json=about(path, "boundless"))
    assert reply.status_code == 500
    assert "not finite" in told(path, reply)["message"]


def test_every_route_wants_the_key(tmp_path: Path) -> None:
    with locked(tmp_path) as client:
        for path in PATHS:
            assert client.post(path, json=about(path, "calm")).status_code == 401
