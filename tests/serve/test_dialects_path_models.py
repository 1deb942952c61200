"""A model in the path names the rewards where no body does, in each dialect's own words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from serve.border import served
from serve.foreign import locked, native, real_server, rendered
from serve.route_bodies import DIALECTS
from starlette.testclient import TestClient
from tei_client.clients.http_client import HttpClient

from tureen_core.calibration import compute_sigmoid

OPENED = [path for path in DIALECTS if path.startswith(("/tei", "/gym"))]
OWN = {"id", "rid", "created", "meta_info"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served() as found:
        yield found


def insert(path: str, model: str) -> str:
    """The path with a model behind the dialect's name."""
    _, dialect, rest = path.split("/", 2)
    return f"/{dialect}/{model}/{rest}"


def leave_out(reply: Any) -> Any:
    if isinstance(reply, dict):
        return {name: leave_out(each) for name, each in reply.items() if name not in OWN}
    return [leave_out(each) for each in reply] if isinstance(reply, list) else reply


@pytest.mark.parametrize("path", OPENED)
@pytest.mark.parametrize("model", ["calm", "calm=0.75+funny=0.25", "calm=0.75%2Cfunny=0.25"])
def test_a_model_in_the_path_is_that_of_the_query(client: TestClient, path: str, model: str) -> None:
    body = DIALECTS[path]
    found = client.post(insert(path, model), json=body)
    asked = client.post(path, params={"model": model.replace("%2C", ",")}, json=body)
    assert (found.status_code, asked.status_code) == (200, 200), found.text
    assert leave_out(found.json()) == leave_out(asked.json())
    assert client.post(path, json=body).status_code in (400, 404)  # two rewards are loaded


@pytest.mark.parametrize("path", OPENED)
def test_an_unknown_one_is_an_error_in_the_dialects_words(client: TestClient, path: str) -> None:
    found = client.post(insert(path, "nobody"), json=DIALECTS[path])
    asked = client.post(path, params={"model": "nobody"}, json=DIALECTS[path])
    assert found.status_code == asked.status_code
    assert found.json() == asked.json()
    assert "nobody" in found.text


@pytest.mark.parametrize("path", OPENED)
def test_a_refused_key_has_the_dialects_words_too(path: str, tmp_path: Path) -> None:
    with locked(tmp_path) as client:
        found, asked = client.post(insert(path, "calm"), json={}), client.post(path, json={})
    assert (found.status_code, found.text) == (asked.status_code, asked.text)


def test_the_other_routes_answer_beside_them(client: TestClient) -> None:
    assert client.get("/tei/funny/info").json()["model_id"] == "funny"
    assert client.get("/tei/funny/health").status_code == 200
    assert client.get("/gym/calm/reverify_mode").json() == "stateless"
    assert client.post("/gym/calm/seed_session", json={}).json() == {}
    assert client.post("/tei/calm", json={"inputs": "calm"}).json()[0]["label"] == "calm"
    assert client.get("/tei/calm/nowhere").status_code == 404


def test_the_document_names_the_parameter_and_metrics_the_template(client: TestClient) -> None:
    told = client.get("/openapi.json").json()["paths"]["/tei/{model}/rerank"]["post"]["parameters"]
    assert {(each["name"], each["in"]) for each in told} == {("model", "path")}
    client.post("/tei/calm/rerank", json=DIALECTS["/tei/rerank"])
    assert 'route="/tei/{model}/rerank",status="200"' in client.get("/metrics").text


def test_clients_that_append_to_their_base_rank_and_classify(tmp_path: Path) -> None:
    question, answers = "why do leaves fall in autumn?", ["the wind is lazy", "over the dog"]
    with real_server(tmp_path) as address:
        expected = [each["helpful"] for each in native(address, question, answers)]
        client = HttpClient(f"{address}/tei/helpful")
        with client.client:
            ranks = client.rerank(question, answers, raw_scores=True).ranks
        assert {each.index: each.score for each in ranks} == pytest.approx(dict(enumerate(expected)), abs=1e-5)
        texts = [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]
        hugging: Any = InferenceClient(model=f"{address}/tei/helpful", provider="hf-inference", token="none")
        assert hugging.health_check()
        found = hugging.text_classification(rendered(*texts))
        assert found.score == pytest.approx(compute_sigmoid(expected[0]), abs=1e-5)
