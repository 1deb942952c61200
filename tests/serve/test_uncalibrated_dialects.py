"""A reward without a calibration in every dialect: the raw reward, in either spelling, and never added to another."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from serve.border import served
from serve.uncalibrated import NAMED, REMEDY, bare_engine
from starlette.testclient import TestClient

from tureen_core.calibration import compute_sigmoid
from tureen_serve.dialects import DIALECTS
from tureen_serve.dialects.model_names import check_aliases

TEXT, RAW, SURE = "calm calm funny", 2.0, compute_sigmoid(2.0)
PAIR = {"queries": "q", "documents": TEXT}
DOCUMENTS = {"query": "q", "documents": [TEXT]}
TURN = {"type": "message", "role": "assistant", "content": TEXT}
MIX = "calm=1+funny=1"

Read = Callable[[Any], Any]
CASES: dict[str, tuple[dict[str, Any], Read, Any]] = {
    "/classify": ({"input": TEXT}, lambda reply: reply["data"][0]["probs"], [SURE]),
    "/pooling": ({"input": TEXT}, lambda reply: reply["data"][0]["data"], [SURE]),
    "/score": (PAIR, lambda reply: reply["data"][0]["score"], SURE),
    "/rerank": (DOCUMENTS, lambda reply: reply["results"][0]["relevance_score"], SURE),
    "/vllm/v1/score": (PAIR, lambda reply: reply["data"][0]["score"], SURE),
    "/vllm/v1/rerank": (DOCUMENTS, lambda reply: reply["results"][0]["relevance_score"], SURE),
    "/vllm/v2/rerank": (DOCUMENTS, lambda reply: reply["results"][0]["relevance_score"], SURE),
    "/get_reward": ({"query": [TEXT]}, lambda reply: (reply["rewards"], reply["scores"]), ([RAW], [SURE])),
    "/tei": ({"inputs": TEXT}, lambda reply: reply[0]["score"], SURE),
    "/tei/predict": ({"inputs": TEXT, "raw_scores": True}, lambda reply: reply[0]["score"], RAW),
    "/tei/rerank": ({"query": "q", "texts": [TEXT]}, lambda reply: reply[0]["score"], SURE),
    "/sglang/classify": ({"text": TEXT}, lambda reply: reply["embedding"], [RAW]),
    "/sglang/v1/embeddings": ({"input": TEXT}, lambda reply: reply["data"][0]["embedding"], [RAW]),
    "/sglang/v1/score": ({"items": [TEXT]}, lambda reply: reply["scores"], [[RAW]]),
    "/sglang/v1/rerank": (DOCUMENTS, lambda reply: reply[0]["score"], RAW),
    "/slime": ({"prompt": "q", "response": TEXT}, lambda reply: reply, RAW),
    "/gym/verify": (
        {"responses_create_params": {"input": "q"}, "response": {"output": [TURN]}},
        lambda reply: (reply["reward"], reply["reward_components"]),
        (RAW, {"calm": RAW}),
    ),
    "/llamafactory/v1/score/evaluation": ({"messages": [TEXT]}, lambda reply: reply["scores"], [RAW]),
    "/infinity/rerank": (DOCUMENTS, lambda reply: reply["results"][0]["relevance_score"], SURE),
    "/infinity/classify": ({"input": [TEXT]}, lambda reply: reply["data"][0][0]["score"], SURE),
}
PATHS = (("/tei", ""), ("/tei", "/predict"), ("/tei", "/rerank"), ("/gym", "/verify"))  # with a model in the path
CASES |= {f"/vllm{path}": CASES[path] for path in ("/classify", "/pooling", "/score", "/rerank")}
CASES |= dict.fromkeys(("/v1/rerank", "/v2/rerank"), CASES["/rerank"])
CASES |= {f"{base}/{{model}}{rest}": CASES[base + rest] for base, rest in PATHS}
WITHOUT_REWARDS = ("tokenize", "_session", "/aggregate_metrics")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served(bare_engine()) as found:
        yield found


def test_every_route_of_a_dialect_that_scores_stands_here() -> None:
    routes = [route for dialect in DIALECTS for route in dialect.router.routes if isinstance(route, APIRoute)]
    posted = {route.path for route in routes if "POST" in route.methods}
    assert {path for path in posted if not path.endswith(WITHOUT_REWARDS)} == set(CASES)


@pytest.mark.parametrize("model", ["calm", "calm=1", "calm=1+funny=0"])
@pytest.mark.parametrize("path", CASES)
def test_a_dialect_gives_the_raw_reward_in_either_spelling(client: TestClient, path: str, model: str) -> None:
    body, read, wanted = CASES[path]
    reply = client.post(path.format(model=model), params={"model": model}, json={**body, "model": model})
    assert reply.status_code == 200, reply.text
    assert read(reply.json()) == wanted


@pytest.mark.parametrize("path", CASES)
def test_a_dialect_refuses_a_mix_and_names_the_reward(client: TestClient, path: str) -> None:
    reply = client.post(path.format(model=MIX), params={"model": MIX}, json={**CASES[path][0], "model": MIX})
    assert reply.status_code in (400, 422)
    assert NAMED in reply.text
    assert REMEDY in reply.text


def test_an_alias_for_such_a_mix_is_refused_at_the_start() -> None:
    rewards = bare_engine().rewards
    assert check_aliases({"raw": "calm+funny", "one": "calm=1"}, rewards) is None
    assert str(check_aliases({"mix": MIX}, rewards)).startswith(f"aliases.mix: {NAMED}")
