"""vLLM's own server beside ours over one checkpoint: the same bodies, the same statuses, keys and numbers."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
import tiny
from serve.border import wait_for_models
from starlette.testclient import TestClient
from vllm_runtime.peer_bodies import ENCODED, IDS, LONG, PAIRS, RAW, READ, REFUSED, REFUSED_HERE, TEXT, Sent

from tureen_serve.app import create_app
from tureen_serve.dialects.query_documents import shorten_text
from tureen_serve.dialects.vllm_encoding import DTYPES, Encoding
from tureen_serve.settings import load_settings
from tureen_serve.starter.demo import end_process, find_free_port

CLOSE = 1e-3
CONTEXT = 256
THEIR_OWN = {"id", "created", "model", "label"}  # ids and clocks; the names of a checkpoint and of an objective
ENGINE = {
    "runner": "pooling",
    "dtype": "float32",
    "max-model-len": CONTEXT,
    "max-num-seqs": 16,
    "max-num-batched-tokens": 512,
    "served-model-name": "whole",
    "host": "127.0.0.1",
}
ON_CPU = {"kv-cache-memory-bytes": 2**28, "block-size": 32}


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward that is read as vLLM reads: no token but the text's own, at the last one, cut on the right."""
    plain: dict[str, Any] = {"bos": "none", "eos": "none", "pooling": "last", "truncation": "right"}
    return tiny.full_reward(tmp_path_factory.mktemp("peer") / "whole", base, "whole", 4, **plain).folder


@pytest.fixture(scope="module")
def theirs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """vLLM's server, what ``vllm serve`` runs."""
    import torch

    port = find_free_port()
    options = {"model": folder, "port": port, **ENGINE, **({} if torch.cuda.is_available() else ON_CPU)}
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *flags]
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with log.open("w") as written, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        process = subprocess.Popen(command, stdout=written, stderr=written)
        try:
            _wait(client, process, log)
            yield client
        finally:
            end_process(process)


def _wait(client: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    last = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < last:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server is not ready: {log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Iterator[TestClient]:
    """Our server, in process, on transformers."""
    app = create_app(load_settings(rewards=[{"path": folder}], runtime="transformers", dtype="float32", device="cpu"))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_for_models(app)
        assert app.state.server.failure is None
        yield client


def agree(found: Any, wanted: Any, at: str = "") -> None:
    """The same keys, the same numbers, the same words but for names and ids."""
    if isinstance(wanted, dict):
        assert set(found) == set(wanted), at
        for key in set(wanted) - THEIR_OWN:
            agree(found[key], wanted[key], f"{at}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), at
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            agree(one, other, f"{at}[{index}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=CLOSE), at
    else:
        assert found == wanted, at


def both(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> tuple[Any, Any]:
    """Two replies to one body; ours at the root too, where it is the same."""
    path, body = sent
    mine, other = ours.post(f"/vllm{path}", json=body), theirs.post(path, json=body)
    if path.count("/") == 1:
        assert ours.post(path, json=body).status_code == mine.status_code
    return mine, other


@pytest.mark.parametrize("sent", READ, ids=str)
def test_every_option_of_texts(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> None:
    mine, other = both(ours, theirs, sent)
    assert (mine.status_code, other.status_code) == (200, 200), (mine.text, other.text)
    agree(mine.json(), other.json())


@pytest.mark.parametrize("sent", ENCODED, ids=str)
def test_every_encoding(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> None:
    """Numbers may differ in their last bits, so what is compared is what a client decodes."""
    mine, other = both(ours, theirs, sent)
    assert (mine.status_code, other.status_code) == (200, 200), (mine.text, other.text)
    assert mine.headers["content-type"] == other.headers["content-type"]
    for one, two in zip(decoded(mine, sent[1]), decoded(other, sent[1]), strict=True):
        assert one == pytest.approx(two, rel=2e-1 if sent[1]["embed_dtype"].startswith("fp8") else 2e-2)
    assert ("metadata" in mine.headers) == ("metadata" in other.headers)
    agree(json.loads(mine.headers.get("metadata", "0")), json.loads(other.headers.get("metadata", "0")))


def decoded(reply: Any, body: dict[str, Any]) -> list[list[float]]:
    """The rows of a reply, as vLLM's own reader reads them."""
    from vllm.utils.serial_utils import EMBED_DTYPES, binary2tensor

    if body["encoding_format"] == "base64":
        blocks = [base64.b64decode(each["data"]) for each in reply.json()["data"]]
    else:
        width = EMBED_DTYPES[body["embed_dtype"]].nbytes
        blocks = [reply.content[start : start + width] for start in range(0, len(reply.content), width)]
    shape = (1,)
    rows = [binary2tensor(bytearray(each), shape, body["embed_dtype"], body["endianness"]) for each in blocks]
    return [numpy.asarray(row.float()).tolist() for row in rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("endianness", ["native", "big", "little"])
def test_a_rows_bytes_are_exactly_vllms(dtype: Any, endianness: Any) -> None:
    import torch
    from vllm.utils.serial_utils import tensor2binary

    row = [0.0, -0.0, 1.5, -447.0, 3.14159, 1e-7]
    assert Encoding(dtype, endianness).block(row) == tensor2binary(torch.tensor(row), dtype, endianness)


@pytest.mark.parametrize("sent", REFUSED, ids=str)
def test_what_both_refuse(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> None:
    """With one status and one shape; sentences, and the fields that they name, are ours."""
    mine, other = both(ours, theirs, sent)
    assert (mine.status_code, other.status_code) == (400, 400), (mine.text, other.text)
    assert set(mine.json()) == set(other.json()) == {"error"}
    assert set(mine.json()["error"]) == set(other.json()["error"])
    assert mine.json()["error"]["code"] == other.json()["error"]["code"] == 400


def test_an_unknown_model_is_a_404_there_and_the_only_reward_here(ours: TestClient, theirs: httpx2.Client) -> None:
    mine, other = both(ours, theirs, ("/classify", {"input": TEXT, "model": "/ckpt/reward/step_900"}))
    assert (mine.status_code, other.status_code) == (200, 404)
    assert mine.json()["model"] == "whole"


@pytest.mark.parametrize("sent", REFUSED_HERE, ids=str)
def test_what_only_we_refuse(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> None:
    mine, other = both(ours, theirs, sent)
    assert (mine.status_code, other.status_code) == (400, 200), (mine.text, other.text)


def test_the_older_name_of_the_option_still_works_here(ours: TestClient, theirs: httpx2.Client) -> None:
    _, other = both(ours, theirs, ("/classify", {"input": TEXT, **RAW}))
    mine, activated = both(ours, theirs, ("/classify", {"input": TEXT, "activation": False}))
    agree(mine.json(), other.json())
    assert activated.json()["data"][0]["probs"][0] == pytest.approx(mine_probability(mine), abs=CLOSE)


@pytest.mark.parametrize("end", ["", "\n\n", "<|im_end|>", "<|im_end|>\n"])
def test_a_text_has_the_reward_of_its_conversation_however_it_ends(
    ours: TestClient, theirs: httpx2.Client, end: str
) -> None:
    """vLLM reads another token at another end; here the template's own end stands for all."""
    _, other = both(ours, theirs, ("/classify", {"input": TEXT, **RAW}))
    mine = ours.post("/classify", json={"input": TEXT.rstrip() + end, **RAW})
    agree(mine.json(), other.json())


def mine_probability(reply: Any) -> float:
    return float(1 / (1 + numpy.exp(-reply.json()["data"][0]["probs"][0])))


def test_padding_never_changes_a_score_here(ours: TestClient, theirs: httpx2.Client) -> None:
    """vLLM pads to its whole context and reads the reward off the last pad."""
    plain, _ = both(ours, theirs, ("/classify", {"input": TEXT, **RAW}))
    mine, other = both(ours, theirs, ("/classify", {"input": TEXT, "padding": "max_length", **RAW}))
    agree(mine.json(), plain.json())
    assert other.json()["usage"]["prompt_tokens"] == CONTEXT


@pytest.mark.parametrize("sent", PAIRS, ids=str)
def test_pairs_are_conversations(ours: TestClient, theirs: httpx2.Client, sent: Sent) -> None:
    """The shape of vLLM's answer, and for each document the number that vLLM gives to the conversation."""
    mine, other = both(ours, theirs, sent)
    assert (mine.status_code, other.status_code) == (200, 200), (mine.text, other.text)
    assert set(mine.json()) == set(other.json())
    kind = "data" if "score" in sent[0] else "results"
    for one, two in zip(mine.json()[kind], other.json()[kind], strict=True):
        assert set(one) == set(two)
    scores = [row.get("score", row.get("relevance_score")) for row in mine.json()[kind]]
    expected = {row["index"]: conversation(theirs, sent[1], row["index"]) for row in mine.json()[kind]}
    assert scores == pytest.approx([expected[row["index"]] for row in mine.json()[kind]], abs=CLOSE)
    assert kind == "data" or scores == sorted(scores, reverse=True)


def conversation(theirs: httpx2.Client, body: dict[str, Any], index: int) -> float:
    """What vLLM's ``/classify`` says of a body's pair as a conversation."""
    names = ("queries", "query", "text_1", "data_1"), ("documents", "items", "text_2", "data_2")
    query, document = (next(body[name] for name in side if name in body) for side in names)
    query, document = ([each] if isinstance(each, str) else each for each in (query, document))
    asked = query[min(index, len(query) - 1)]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": document[index]}]
    options = {name: body[name] for name in ("use_activation", "truncate_prompt_tokens") if name in body}
    reply = theirs.post("/classify", json={"messages": turns, **options})
    return float(reply.json()["data"][0]["probs"][0])


@pytest.mark.parametrize("most", [1, 2, 5, 9, 40])
def test_a_text_is_bounded_where_vllm_bounds_it(most: int) -> None:
    from vllm.entrypoints.pooling.scoring.utils import truncate_text_to_tokens

    tokens = tiny.tokenizer()
    for text in (TEXT, LONG, "  white\n\n space \n", "naïve 猫も。 gold…", ""):
        assert shorten_text(text, tokens, most) == truncate_text_to_tokens(text, tokens, most)


def test_one_bad_text_fails_the_request_in_both(ours: TestClient, theirs: httpx2.Client) -> None:
    mine, other = both(ours, theirs, ("/classify", {"input": [IDS, [10**6]]}))
    assert (mine.status_code, other.status_code) == (400, 400)
    assert mine.json()["error"]["param"] == "input[1]"


def test_a_body_that_is_no_json(ours: TestClient, theirs: httpx2.Client) -> None:
    for content, kind in ((b"{", "application/json"), (b'{"input": "a"}', "text/plain")):
        mine = ours.post("/classify", content=content, headers={"content-type": kind})
        other = theirs.post("/classify", content=content, headers={"content-type": kind})
        assert (mine.status_code, other.status_code) == (400, 400)
        assert set(mine.json()["error"]) == set(other.json()["error"])


def test_health_and_models(ours: TestClient, theirs: httpx2.Client) -> None:
    mine, other = ours.get("/vllm/health"), theirs.get("/health")
    assert (mine.status_code, mine.content) == (other.status_code, other.content) == (200, b"")
    listed, known = ours.get("/vllm/v1/models").json(), theirs.get("/v1/models").json()
    assert set(listed) == set(known)
    assert set(listed["data"][0]) == set(known["data"][0])
    assert listed["data"][0]["id"] == known["data"][0]["id"] == "whole"
    assert listed["data"][0]["max_model_len"] == known["data"][0]["max_model_len"] == CONTEXT
