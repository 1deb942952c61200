"""What every route does with a text that is too long, and the way out that it tells; service/README.md has a table."""

from collections.abc import Iterator
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT
from starlette.testclient import TestClient

LONG = "calm " * CONTEXT * 2
ASKED = {"role": "user", "content": "q"}
TURN = {"type": "message", "role": "assistant", "content": LONG}
ROLLOUT = {"responses_create_params": {"input": "q"}, "response": {"output": [TURN]}}
ITEM = {"prompt": "q", "candidates": ["calm", LONG]}
NONE = "shorten it, because this route cannot cut texts"
QUERY = "shorten it, or add ?truncate=true to the URL to have it cut"
NATIVE = "shorten it, or send `truncate: true` to have it cut"
VLLM = "shorten it, or send `truncate_prompt_tokens: -1` to have it cut"
TEI = "shorten it, or leave out `truncate: false`"
CUT = {"truncate": True}
VLLM_CUT = {"truncate_prompt_tokens": -1}
REFUSED: dict[str, tuple[str, Any, str, dict[str, Any] | None]] = {
    "score": ("/v1/score", {"items": [ITEM]}, NATIVE, CUT),
    "labels": ("/v1/preferences", {"items": [ITEM]}, NATIVE, CUT),
    "vllm texts": ("/classify", {"input": LONG}, VLLM, VLLM_CUT),
    "vllm pooling": ("/vllm/pooling", {"input": LONG}, VLLM, VLLM_CUT),
    "vllm pairs": ("/score", {"queries": "q", "documents": LONG}, VLLM, VLLM_CUT),
    "vllm ranks": ("/vllm/v1/rerank", {"query": "q", "documents": [LONG]}, VLLM, VLLM_CUT),
    "openrlhf": ("/get_reward", {"query": [LONG]}, NONE, None),
    "tei texts": ("/tei/predict", {"inputs": LONG, "truncate": False}, TEI, CUT),
    "tei ranks": ("/tei/rerank", {"query": "q", "texts": [LONG], "truncate": False}, TEI, CUT),
    "sglang texts": ("/sglang/classify", {"text": LONG}, NONE, None),
    "sglang embeddings": ("/sglang/v1/embeddings", {"input": LONG}, NONE, None),
    "sglang items": ("/sglang/v1/score", {"query": "q", "items": [LONG]}, NONE, None),
    "sglang ranks": ("/sglang/v1/rerank", {"query": "q", "documents": [LONG]}, NONE, None),
    "slime": ("/slime", {"prompt": "q", "response": LONG}, QUERY, None),
    "gym": ("/gym/verify", ROLLOUT, QUERY, None),
}
CUT_IN_SILENCE: dict[str, Any] = {
    "/tei/predict": {"inputs": LONG},
    "/tei/rerank": {"query": "q", "texts": [LONG]},
    "/infinity/classify": {"input": [LONG]},
    "/infinity/rerank": {"query": "q", "documents": [LONG]},
    "/llamafactory/v1/score/evaluation": {"model": "calm", "messages": [LONG]},
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served(aliases={"default": "calm"}) as found:
        yield found


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_too_long_is_refused_with_the_way_out(client: TestClient, case: str) -> None:
    path, body, remedy, cut = REFUSED[case]
    reply = client.post(path, json=body)
    assert reply.status_code in (400, 413, 422)
    assert remedy in reply.text
    if case.startswith("vllm") or path.startswith("/sglang/v1"):
        assert (reply.status_code, "this model's maximum context length is" in reply.text) == (400, True)
    if cut is not None:
        assert client.post(path, json={**body, **cut}).status_code == 200
    if remedy == QUERY:
        assert client.post(f"{path}?truncate=true", json=body).status_code == 200


@pytest.mark.parametrize("path", CUT_IN_SILENCE)
def test_some_cut_as_their_originals_do(client: TestClient, path: str) -> None:
    assert client.post(path, json=CUT_IN_SILENCE[path]).status_code == 200


def test_a_prompt_that_leaves_no_room_is_told_the_field_too(client: TestClient) -> None:
    body = {"messages": [{**ASKED, "content": LONG}]}
    reply = client.post("/v1/chat/completions", json=body)
    assert "send `truncate: true`" in reply.text
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert f"the prompt is too long: this model's maximum context length is {CONTEXT} tokens" in reply.text
    assert client.post("/v1/chat/completions", json={**body, "truncate": True}).status_code == 200
