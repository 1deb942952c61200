"""Every sampling field over a tiny real model, against transformers' own generation of the same model.

Where `TUREEN_RUNTIME` is ``vllm``, the server's model runs on vLLM.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.border import wait_for_models
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM

from tureen_serve.app import create_app
from tureen_serve.settings import load_settings

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
CONFIG = """
families: [{name: tiny, experts: [calm, dry]}]
port: 0
dtype: float32
device: cpu
"""
PROMPT = "why do leaves fall? the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("artifacts")
    tiny.base(found / "base")
    for seed, name in enumerate(("calm", "dry"), 10):
        tiny.expert(found / name, found / "base", name, seed)
    (found / "server.yaml").write_text(CONFIG)
    return found


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    app = create_app(load_settings(folder / "server.yaml"))
    with TestClient(app) as found:
        wait_for_models(app, 900)
        yield found


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ids() -> list[int]:
    found: list[int] = tiny.tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]
    return found


def post(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json={"model": "tiny", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def write(client: TestClient, ids: list[int], **body: Any) -> list[int]:
    """The ids of a greedy text."""
    body = {"temperature": 0, "max_tokens": 24, **body}
    reply = post(client, TEXT, prompt=ids, logprobs=0, return_tokens_as_token_ids=True, **body)
    (choice,) = reply["choices"]
    return [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]


def generate(model: Any, ids: list[int], **options: Any) -> list[int]:
    """The ids that transformers writes greedily."""
    prompt = torch.tensor([ids])
    options = {"max_new_tokens": 24, "do_sample": False, **options}
    with torch.no_grad():
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    written: list[int] = found[0, len(ids) :].tolist()
    return written


def list_drawn(client: TestClient, ids: list[int], **body: Any) -> set[int]:
    """The first tokens of many texts."""
    reply = post(
        client, TEXT, prompt=ids, logprobs=0, return_tokens_as_token_ids=True, max_tokens=1, n=64, seed=5, **body
    )
    return {int(choice["logprobs"]["tokens"][0].removeprefix("token_id:")) for choice in reply["choices"]}


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.2, 3.0])
def test_the_repetition_penalty_is_transformers(client: TestClient, model: Any, ids: list[int], penalty: float) -> None:
    expected = generate(model, ids, repetition_penalty=penalty)
    assert write(client, ids, repetition_penalty=penalty) == expected


def test_the_repetition_penalty_changes_a_text(client: TestClient, ids: list[int]) -> None:
    assert write(client, ids, repetition_penalty=3.0) != write(client, ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 7, "top_p": 0.5},
        {"min_p": 1.0},
        {"min_p": 0.5},
        {"min_p": 0.5, "top_k": 6, "temperature": 0.8, "repetition_penalty": 1.5},
    ],
)
def test_only_the_tokens_are_drawn_that_the_fields_leave(
    client: TestClient, model: Any, ids: list[int], fields: dict[str, Any]
) -> None:
    """The allowed set is computed in float64, in vLLM's order, from the logits of transformers."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, -1].double()
    said = torch.tensor(sorted(set(ids)))
    penalty = fields.get("repetition_penalty", 1.0)
    scores[said] = torch.where(scores[said] > 0, scores[said] / penalty, scores[said] * penalty)
    chances = (scores / fields.get("temperature", 2.0)).softmax(-1)
    chances[chances < fields.get("min_p", 0.0) * chances.max()] = 0
    if "top_k" in fields:
        chances[chances < chances.sort(descending=True).values[fields["top_k"] - 1]] = 0
    chances /= chances.sum()
    order = chances.argsort(descending=True)
    chances[order[chances[order].cumsum(0) - chances[order] >= fields.get("top_p", 1.0)]] = 0
    allowed = set(chances.nonzero().flatten().tolist())
    found = list_drawn(client, ids, **{"temperature": 2.0, **fields})
    assert found <= allowed
    assert len(found) >= min(len(allowed), 3)


@pytest.mark.parametrize("fields", [{"top_k": 0}, {"top_k": -1}, {"min_p": 0.0}, {"repetition_penalty": 1.0}])
def test_neutral_values_change_nothing(client: TestClient, ids: list[int], fields: dict[str, Any]) -> None:
    body = {"temperature": 1.3, "seed": 11}
    assert write(client, ids, **body, **fields) == write(client, ids, **body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_k", 2**31),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", 101),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(client: TestClient, field: str, value: float) -> None:
    for path, more in ((TEXT, {"prompt": "a"}), (CHAT, {"messages": [{"role": "user", "content": "a"}]})):
        reply = client.post(path, json={"model": "tiny", **more, field: value})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)


def test_a_sweep_and_candidates_have_them_too(client: TestClient) -> None:
    """With ``top_k`` 1 any temperature writes what greedy decoding writes, under each soup."""
    sweep = [{"calm": 1}, {"calm": 1, "dry": 1}, {"dry": 1}]
    body = {"messages": [{"role": "user", "content": "why?"}], "max_tokens": 8, "preferences": sweep}
    greedy = post(client, CHAT, **body, temperature=0)
    drawn = post(client, CHAT, **body, temperature=1.5, top_k=1, seed=3)
    found, expected = ([choice["message"]["content"] for choice in each["choices"]] for each in (drawn, greedy))
    assert found == expected
    assert len(set(found)) > 1
