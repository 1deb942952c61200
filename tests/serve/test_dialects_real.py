"""vLLM's and SGLang's routes over real tiny rewards: the number of ``/v1/score``, whichever way a text comes in."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from serve.artifacts import build
from serve.border import wait_for_models
from serve.foreign import native, real_server, rendered
from starlette.testclient import TestClient

from tureen_core.base import load_tokenizer
from tureen_core.calibration import compute_sigmoid
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_serve.app import create_app
from tureen_serve.settings import load_settings

CLOSE = 1e-6
QUESTION, ANSWERS = "why do leaves fall in autumn?", ["the wind is lazy", "the quick brown fox", "  white\n\nspace \n"]
ASK = {"role": "user", "content": QUESTION}
BOS = "<|im_start|>"
RAW = {"use_activation": False}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


def talk(answer: str) -> list[dict[str, str]]:
    return [ASK, {"role": "assistant", "content": answer}]


def post(address: str, path: str, **body: Any) -> Any:
    reply = httpx2.post(f"{address}{path}", json={"model": "helpful", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def classify(address: str, **body: Any) -> list[float]:
    """Raw rewards by ``/classify``."""
    return [row["probs"][0] for row in post(address, "/classify", **RAW, **body)["data"]]


def expected(address: str, name: str = "helpful", **options: Any) -> list[float]:
    return [row[name] for row in native(address, QUESTION, ANSWERS, **options)]


def test_a_templated_text_scores_as_its_conversation(address: str) -> None:
    texts = [rendered(*talk(answer)) for answer in ANSWERS]
    assert classify(address, input=texts) == pytest.approx(expected(address), abs=CLOSE)


@pytest.mark.parametrize("answer", ANSWERS)
def test_neither_a_missing_nor_a_second_bos_nor_white_space_at_the_end_changes_a_score(
    address: str, answer: str
) -> None:
    """verl takes a leading BOS off; templates end with a newline that other servers strip or read."""
    text = rendered(*talk(answer))
    assert text.startswith(BOS)
    assert text.endswith("\n")
    ways = [text, text.removeprefix(BOS), text.rstrip("\n"), text + "\n ", text.rstrip("\n").removesuffix("<|im_end|>")]
    (wanted,) = (row["helpful"] for row in native(address, QUESTION, [answer]))
    assert classify(address, input=ways) == pytest.approx([wanted] * len(ways), abs=CLOSE)
    embedded = post(address, "/sglang/v1/embeddings", input=ways)["data"]
    assert [each for row in embedded for each in row["embedding"]] == pytest.approx([wanted] * len(ways), abs=CLOSE)


def test_without_special_tokens_a_text_is_what_it_is(address: str) -> None:
    text = rendered(*talk(ANSWERS[0]))
    bare = text.removeprefix(BOS)
    whole, cut, ended = classify(address, input=[text.rstrip("\n"), bare, text], add_special_tokens=False)
    assert whole == pytest.approx(expected(address)[0], abs=CLOSE)
    assert abs(cut - whole) > 1e-3
    assert abs(ended - whole) > 1e-3


def test_token_ids_are_scored_as_they_are(address: str) -> None:
    closed = {"messages": talk(ANSWERS[0]), "add_generation_prompt": False}
    ids = post(address, "/tokenize", **closed)["tokens"]
    assert classify(address, input=ids) == pytest.approx(expected(address)[:1], abs=CLOSE)
    assert classify(address, input=[ids, ids[:9]])[0] == pytest.approx(expected(address)[0], abs=CLOSE)
    found = post(address, "/sglang/classify?model=helpful", input_ids=[ids])
    assert found[0]["embedding"] == pytest.approx(expected(address)[:1], abs=CLOSE)


@pytest.mark.parametrize("ids", [[5, -1], [10**6]])
def test_ids_that_are_no_tokens_are_refused(address: str, ids: list[int]) -> None:
    for path in ("/classify", "/sglang/v1/embeddings"):
        assert httpx2.post(f"{address}{path}", json={"model": "helpful", "input": ids}).status_code == 400


@pytest.mark.parametrize("given", ["", []])
def test_a_text_of_no_tokens_has_no_reward(address: str, given: Any) -> None:
    body = {"model": "helpful", "input": [given], "add_special_tokens": False}
    reply = httpx2.post(f"{address}/classify", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input[0]"


def test_conversations_and_pairs_score_as_the_native_items_do(address: str) -> None:
    wanted = expected(address)
    assert [classify(address, messages=talk(each))[0] for each in ANSWERS] == pytest.approx(wanted, abs=CLOSE)
    rows = post(address, "/score", queries=QUESTION, documents=ANSWERS, **RAW)["data"]
    assert [row["score"] for row in rows] == pytest.approx(wanted, abs=CLOSE)
    results = post(address, "/rerank", query=QUESTION, documents=ANSWERS, **RAW)["results"]
    assert [row["relevance_score"] for row in results] == pytest.approx(sorted(wanted, reverse=True), abs=CLOSE)
    ranked = post(address, "/sglang/v1/rerank?model=helpful", query=QUESTION, documents=ANSWERS)
    assert [row["index"] for row in ranked] == [row["index"] for row in results]


def test_probabilities_are_those_of_the_raw_rewards(address: str) -> None:
    texts = [rendered(*talk(answer)) for answer in ANSWERS]
    rows = post(address, "/classify", input=texts)["data"]
    wanted = [compute_sigmoid(each) for each in expected(address)]
    assert [each for row in rows for each in row["probs"]] == pytest.approx(wanted, abs=CLOSE)


def test_columns_and_mixes_are_the_native_ones(address: str) -> None:
    text = rendered(*talk(ANSWERS[0]))
    scores = native(address, QUESTION, ANSWERS[:1])[0]
    (row,) = post(address, "/classify", input=text, model="helpful,amusing", **RAW)["data"]
    assert row["probs"] == pytest.approx([scores["helpful"], scores["amusing"]], abs=CLOSE)
    (row,) = post(address, "/classify", input=text, model="helpful,amusing")["data"]
    odds = [math.exp(scores[name]) for name in ("helpful", "amusing")]
    assert row["probs"] == pytest.approx([each / sum(odds) for each in odds], abs=CLOSE)
    item = {"prompt": QUESTION, "candidates": ANSWERS[:1]}
    weighed = httpx2.post(f"{address}/v1/score", json={"items": [item], "preferences": {"helpful": 3, "amusing": 1}})
    (row,) = post(address, "/classify", input=text, model="helpful=3,amusing=1", **RAW)["data"]
    assert row["probs"] == pytest.approx([weighed.json()["data"][0]["candidates"][0]["reward"]], abs=CLOSE)


def test_cutting_keeps_what_the_reward_reads_at_its_end(address: str) -> None:
    long = "the quick brown fox jumps over the lazy dog " * 40
    (wanted,) = (row["helpful"] for row in native(address, QUESTION, [long], truncate=True))
    body = {"truncate_prompt_tokens": -1, **RAW}
    assert classify(address, input=rendered(*talk(long)), truncate_prompt_tokens=-1) == [
        pytest.approx(wanted, abs=CLOSE)
    ]
    assert classify(address, messages=talk(long), truncate_prompt_tokens=-1) == [pytest.approx(wanted, abs=CLOSE)]
    (row,) = post(address, "/score", queries=QUESTION, documents=[long], **body)["data"]
    assert row["score"] == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_is_of_so_many_tokens_on_the_side_that_is_asked(address: str, side: str) -> None:
    text = rendered(*talk(ANSWERS[0]))
    ids = Renderer(tiny.tokenizer(), Reading()).render_text(text).ids
    kept = ids[-9:] if side == "left" else [*ids[:8], ids[-1]]
    options = {"truncate_prompt_tokens": 9, "truncation_side": side}
    assert classify(address, input=text, **options) == pytest.approx(classify(address, input=kept), abs=CLOSE)
    answer = post(address, "/classify", messages=talk(ANSWERS[0]), **options, **RAW)
    assert answer["data"][0]["probs"] == pytest.approx(classify(address, input=kept), abs=CLOSE)
    assert answer["usage"]["prompt_tokens"] == 9


def test_texts_that_are_asked_twice_are_computed_once(tmp_path: Path) -> None:
    """Within a request and, as a blind retry, after it."""
    app = create_app(load_settings(build(tmp_path)))
    texts = [rendered(*talk(f"{answer} again")) for answer in ANSWERS] * 4
    body = {"model": "helpful", "input": texts, **RAW}
    with TestClient(app) as client:
        wait_for_models(app)
        rows = [client.post("/classify", json=body).json()["data"] for _ in range(2)]
        lines = client.get("/metrics").text.splitlines()
    computed = [float(line.split()[-1]) for line in lines if line.startswith("tureen_batch_rows_sum")]
    assert sum(computed) == len(ANSWERS)
    first = [row["probs"] for row in rows[0]]
    assert first == first[: len(ANSWERS)] * 4
    assert rows[1] == rows[0]


def test_the_template_here_is_that_of_the_rewards(address: str, tmp_path: Path) -> None:
    """What these tests call rendered is what a client renders with the reward's own tokenizer."""
    own: Any = load_tokenizer(tiny.base(tmp_path / "base")).apply_chat_template(talk(ANSWERS[0]), tokenize=False)
    assert own == rendered(*talk(ANSWERS[0]))
    assert post(address, "/tokenize", prompt=own)["tokens"] == Renderer(tiny.tokenizer(), Reading()).tokenize_text(own)
