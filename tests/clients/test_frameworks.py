"""llama-index and DSPy before a real server: texts, streams, structures, tools and errors."""

from pathlib import Path
from typing import Any

import pytest
from clients.programs import ENVIRONMENTS, ask, must_run, run_program
from serve.processes import Process

PYTHON = ENVIRONMENTS / "frameworks/bin/python"
MIX = "tiny:calm=0.7+dry=0.3"
PROMPT = "why do leaves fall?"
CHATS, TEXTS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("frameworks"), reason="`make test-clients` installs llama-index and DSPy"),
]


def run(server: Process, name: str, folder: Path) -> tuple[Any, Any]:
    """Run a script; its caches stay in a folder, and no prices of models are asked for."""
    command = [PYTHON, Path(__file__).parent / f"{name}_script.py"]
    return run_program(server, command, MODEL=MIX, LITELLM_LOCAL_MODEL_COST_MAP="True", DSPY_CACHEDIR=str(folder))


def write(server: Process) -> tuple[str, str]:
    """The chat and the text that the scripts ask for, without a client."""
    asked = {"model": MIX, "temperature": 0, "max_tokens": 16}
    chat = ask(server, CHATS, {**asked, "messages": [{"role": "user", "content": PROMPT}]})
    text = ask(server, TEXTS, {**asked, "prompt": PROMPT})
    return chat["choices"][0]["message"]["content"], text["choices"][0]["text"]


def test_llama_index_reads_texts_structures_and_tools(server: Process, tmp_path: Path) -> None:
    found, replies = run(server, "llama_index", tmp_path)
    assert replies == {(CHATS, 200): 5, (CHATS, 400): 1, (TEXTS, 200): 2}
    chat, text = write(server)
    assert found["chat"] == found["stream"] == found["later"] == chat
    assert found["text"] == found["pieces"] == text
    assert found["place"]["city"] in ("Oslo", "Rome")
    assert found["called"] in ("rain in Oslo", "rain in Rome")
    assert found["fault"] == ["BadRequestError", "context_length_exceeded"]


def test_dspy_reads_chats_responses_and_signatures(server: Process, tmp_path: Path) -> None:
    found, replies = run(server, "dspy", tmp_path)
    assert replies == {(CHATS, 200): 2, (CHATS, 400): 1, (RESPONSES, 200): 1}
    chat, _ = write(server)
    assert found["chat"] == [chat]
    assert found["responses"] == [{"text": chat}]
    assert found["city"] in ("Oslo", "Rome")
    assert found["fault"][0] == "ContextWindowExceededError"
