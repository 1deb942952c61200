"""Encoders, encoder-decoders and decoders that others trained, over HTTP, against their library's own code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from classifiers import PAIRS, score_by_library, write_conversation, write_model
from serve.border import wait_for_models
from starlette.testclient import TestClient

from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, load_settings

# transformers compiles a part of DeBERTa so
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
PAIRED = ("bert", "roberta", "deberta-v2", "distilbert", "modernbert", "electra", "t5", "bart")
CLOSE = 1e-5
LABELS = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
FIVE = dict(enumerate(LABELS))
HH = "\n\nHuman: {}\n\nAssistant: {}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, kind in enumerate(PAIRED):
        write_model(folder / kind, kind, seed=seed)
    write_model(folder / "five", "roberta", labels=5, id2label=FIVE)
    write_model(folder / "sigmoid", "bert", labels=2, problem_type="multi_label_classification")
    write_model(folder / "softmax", "distilbert", labels=2, problem_type="single_label_classification")
    write_model(folder / "decoder", "gpt2")
    write_model(folder / "typed", "bert", seed=3)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    """A server of all models, each read as its template says."""
    entries = [RewardEntry(path=folder / kind, template="text-pair", objectives=(kind,)) for kind in PAIRED]
    entries += [
        RewardEntry(path=folder / "five", template="text-pair"),
        RewardEntry(path=folder / "sigmoid", template="answer", objectives=("toxic", "rude")),
        RewardEntry(path=folder / "softmax", template="text-pair", output="softmax", objectives=("bad", "good")),
        RewardEntry(path=folder / "decoder", template="hh", form="classifier-class", objectives=("decoder",)),
        RewardEntry(path=folder / "typed", template="hh", objectives=("typed",)),
    ]
    app = create_app(load_settings(rewards=entries, dtype="float32", device="cpu", runtime="transformers"))
    with TestClient(app) as found:
        wait_for_models(app)
        assert found.get("/health/ready").json()["status"] == "ready"
        yield found


def scored(client: TestClient, *names: str, pairs: Any = PAIRS) -> list[list[float]]:
    items = [{"messages": write_conversation(*pair)} for pair in pairs]
    reply = client.post("/v1/score", json={"items": items, "rewards": list(names)})
    assert reply.status_code == 200, reply.text
    return [[item["candidates"][0]["scores"][name]["raw"] for name in names] for item in reply.json()["data"]]


def check(found: list[list[float]], wanted: list[list[float]]) -> None:
    values = torch.tensor(wanted)
    assert len(found) == len(values) == 50
    assert (values.max(0).values - values.min(0).values).min() > 100 * CLOSE, "the rewards tell texts apart"
    torch.testing.assert_close(torch.tensor(found), values, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("kind", PAIRED)
def test_fifty_pairs_score_as_by_the_library(client: TestClient, folder: Path, kind: str) -> None:
    check(scored(client, kind), score_by_library(folder / kind, PAIRS))


def test_a_pair_s_segments_matter(client: TestClient, folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "bert").eval()
    ids = AutoTokenizer.from_pretrained(folder / "bert")(*PAIRS[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert abs(model(input_ids=ids).logits.item() - scored(client, "bert", pairs=PAIRS[:1])[0][0]) > 100 * CLOSE


def test_five_labels_are_five_objectives(client: TestClient, folder: Path) -> None:
    check(scored(client, *LABELS), score_by_library(folder / "five", PAIRS))


def test_each_label_of_several_is_a_probability(client: TestClient, folder: Path) -> None:
    answers = [(answer,) for _, answer in PAIRS]
    wanted = torch.tensor(score_by_library(folder / "sigmoid", answers)).sigmoid()
    check(scored(client, "toxic", "rude"), wanted.tolist())


def test_one_label_of_several_is_a_probability_if_asked_for(client: TestClient, folder: Path) -> None:
    wanted = torch.tensor(score_by_library(folder / "softmax", PAIRS)).softmax(-1)
    check(scored(client, "bad", "good"), wanted.tolist())


def test_a_rendered_text_gets_the_tokenizers_special_tokens(client: TestClient, folder: Path) -> None:
    check(scored(client, "typed"), score_by_library(folder / "typed", [(HH.format(*pair),) for pair in PAIRS]))


def test_a_decoder_whose_own_class_scores(client: TestClient, folder: Path) -> None:
    check(scored(client, "decoder"), score_by_library(folder / "decoder", [(HH.format(*pair),) for pair in PAIRS]))


def test_texts_in_one_request_do_not_change_each_other(client: TestClient) -> None:
    pairs = [("a", "b"), PAIRS[4], ("What is it? " * 10, "A fox. " * 8), ("", "Lima."), ("Lima?", "")]
    together = scored(client, *PAIRED, pairs=pairs)
    for pair, found in zip(pairs, together, strict=True):
        assert scored(client, *PAIRED, pairs=[pair])[0] == pytest.approx(found, abs=CLOSE)


def test_a_longer_conversation_is_no_pair(client: TestClient) -> None:
    messages = [*write_conversation("hello", "hi"), *write_conversation("why?", "so")]
    reply = client.post("/v1/score", json={"items": [{"messages": messages}], "rewards": ["bert"]})
    assert reply.status_code == 422, reply.text
    assert "text-pair reads one message of the user and its answer" in json.dumps(reply.json())
    assert scored(client, "toxic", pairs=[("why?", "so")]) == [
        [
            client.post("/v1/score", json={"items": [{"messages": messages}], "rewards": ["toxic"]}).json()["data"][0][
                "candidates"
            ][0]["scores"]["toxic"]["raw"]
        ]
    ]
