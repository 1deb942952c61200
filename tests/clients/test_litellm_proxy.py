"""LiteLLM's proxy before a real server, with the example's own files."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from clients.programs import ENVIRONMENTS, KEY, ask, must_run, run_program, serve_with_keys, write_family
from serve.processes import Process
from waiting import block_until

from tureen_serve.starter.demo import find_free_port

PROGRAMS = ENVIRONMENTS / "litellm/bin"
EXAMPLE = Path(__file__).parents[2] / "clients/examples/litellm/litellm.yaml"
MIXES = {"bookish": "smollm2:literature=0.7+academy=0.3", "playful": "smollm2:playful"}
CHATS = "/v1/chat/completions"
ASKED: Any = {"messages": [{"role": "user", "content": "why do leaves fall?"}], "temperature": 0, "max_tokens": 8}
LONG = {**ASKED, "messages": [{"role": "user", "content": "a b " * 300}]}
DOCUMENTS = ["the wind is lazy", "no", "leaves fall"]
BUDGETS = {"sk-ada": 5.0, "sk-tim": 1e-6}
CONFIG = """
rewards: [{path: helpful}]
families:
  - name: smollm2
    experts: [literature, academy]
    presets: {playful: {academy: 1}}
  - {name: smollm2-long, experts: [calm]}
keys: keys.json
batches: {folder: state}
access: {open_metrics: true}
port: 0
dtype: float32
device: cpu
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("litellm"), reason="`make test-clients` installs LiteLLM and runs this"),
]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The server behind the proxy: the names of the example, and contexts of 512 and 8192 tokens."""
    folder = tmp_path_factory.mktemp("behind")
    base = write_family(folder, "base", 512, ("literature", "academy"))
    write_family(folder, "long", 8192, ("calm",))
    tiny.reward(folder / "helpful", base, "helpful", 0)
    with serve_with_keys(folder, CONFIG) as running:
        yield running


@contextmanager
def run_proxy(server: Process, folder: Path) -> Iterator[str]:
    """The proxy with the example's files. Yields its address."""
    port = find_free_port()
    told = {
        "TUREEN_V1": f"{server.address}/v1",
        "TUREEN_RERANK": f"{server.address}/v1/rerank",
        "TUREEN_API_KEY": KEY,
        "LITELLM_MASTER_KEY": f"sk-{'a1b2c3d4' * 8}",
        "PROXY_BUDGETS": json.dumps(BUDGETS),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    known = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    with (folder / "log").open("w") as log:
        command = [str(PROGRAMS / "litellm"), "--config", str(EXAMPLE), "--port", str(port), "--host", "127.0.0.1"]
        proxy = subprocess.Popen(command, env={**known, **told}, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert proxy.poll() is None, (folder / "log").read_text()[-10_000:]
            try:
                return httpx2.get(f"{address}/health/liveliness", timeout=10).status_code == 200
            except httpx2.TransportError:
                return False

        try:
            block_until(answers, 480)
            yield address
        finally:
            proxy.terminate()
            proxy.wait(60)


@pytest.fixture(scope="module")
def ran(behind: Process, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What the script found, and how often each route of the server answered each status."""
    script = Path(__file__).parent / "litellm_proxy_script.py"
    with run_proxy(behind, tmp_path_factory.mktemp("proxy")) as address:
        ada, tim = BUDGETS
        url = f"{address}/v1"
        return run_program(behind, [PROGRAMS / "python", "-"], script, OPENAI_BASE_URL=url, ADA=ada, TIM=tim)


def write(server: Process, model: str, body: Any = ASKED) -> str:
    """What a model writes, without a proxy."""
    text: str = ask(server, CHATS, {"model": model, **body})["choices"][0]["message"]["content"]
    return text


def test_names_mixes_and_presets_write_what_the_server_writes(behind: Process, ran: tuple[Any, Any]) -> None:
    found, _ = ran
    assert found["models"] == ["smollm2", "bookish", "playful", "smollm2-long", "helpful"]
    plain, bookish, playful, mixed = found["texts"].values()
    assert (plain[0], plain[2]) == (write(behind, "smollm2"), {})
    assert (bookish[0], bookish[2]) == (write(behind, MIXES["bookish"]), {"literature": 0.7, "academy": 0.3})
    assert (playful[0], playful[2]) == (write(behind, MIXES["playful"]), {"academy": 1.0})
    assert mixed[2] == {"literature": 0.5, "academy": 0.5}
    assert found["preferences"][::2] == playful[::2]
    assert found["streamed"] == bookish[0]
    assert found["response"] == write(behind, MIXES["bookish"], {**ASKED, "max_tokens": 16})


def test_what_is_too_long_goes_to_the_family_with_a_longer_context(behind: Process, ran: tuple[Any, Any]) -> None:
    found, _ = ran
    assert found["longer"][:2] == [write(behind, "smollm2-long", LONG), "smollm2-long"]
    assert found["longer streamed"] == found["longer"][0]
    assert found["errors"]["too long for a wildcard"][:2] == ["BadRequestError", 400]
    assert "ContextWindowExceededError" in found["errors"]["too long for a wildcard"][2]


def test_a_reward_ranks_and_a_batch_runs(behind: Process, ran: tuple[Any, Any]) -> None:
    found, _ = ran
    ranks = ask(behind, "/v1/rerank", {"model": "helpful", "query": "why?", "documents": DOCUMENTS, "top_n": 2})
    assert found["ranked"] == [[each["index"], each["relevance_score"]] for each in ranks["results"]]
    mix = found["texts"]["tureen/smollm2:literature=0.5+academy=0.5"][0]
    assert found["batch"] == {"status": "completed", "counts": [1, 1], "text": mix}


def test_budgets_hold_and_errors_have_their_classes(ran: tuple[Any, Any]) -> None:
    found, replies = ran
    told = {name: error[:2] for name, error in found["errors"].items()}
    assert told == {
        "an unknown key": ["AuthenticationError", 401],
        "no such model": ["BadRequestError", 400],
        "no such expert": ["BadRequestError", 400],
        "too long for a wildcard": ["BadRequestError", 400],
        "a spent budget": ["UnprocessableEntityError", 422],
    }
    assert "unknown objective" in found["errors"]["no such expert"][2]
    assert "Budget has been exceeded" in found["errors"]["a spent budget"][2]
    # the two that fell back, the wildcard's, and the expert that is not there; the others the proxy refuses by itself
    assert {place: count for place, count in replies.items() if place[1] >= 400} == {(CHATS, 400): 4}
