"""inspect judges a soup by a real server: texts, structures, tools; and a run whose requests fail does not end well."""

import json
from pathlib import Path
from typing import Any

import pytest
from clients.programs import ENVIRONMENTS, KEY, ask, must_run, run_program
from serve.processes import Process

MIX = "tiny:calm=0.7+dry=0.3"
CHATS = "/v1/chat/completions"
QUESTIONS = ("why do leaves fall?", "the quick brown fox")

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("inspect"), reason="`make test-clients` installs inspect and runs this"),
]


def write(server: Process, question: str) -> str:
    """What the mix answers, without a client."""
    body = {"model": MIX, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 8}
    text: str = ask(server, CHATS, body)["choices"][0]["message"]["content"]
    return text


def test_a_soup_is_judged_and_failed_requests_are_told(server: Process, tmp_path: Path) -> None:
    python, script = ENVIRONMENTS / "inspect/bin/python", Path(__file__).parent / "inspect_script.py"
    address, logs = f"{server.address}/v1", str(tmp_path)
    found: dict[str, Any]
    found, replies = run_program(
        server, [python, script], MODEL=MIX, TUREEN_BASE_URL=address, TUREEN_API_KEY=KEY, LOGS=logs
    )
    runs = {name: run["status"] for name, run in found.items()}
    assert runs == {"plain": "success", "shaped": "success", "calling": "success", "failing": "error"}
    texts = [write(server, question) for question in QUESTIONS]
    assert found["plain"]["texts"] == texts
    assert found["plain"]["accuracy"] == sum("e" in text.lower() for text in texts) / 2
    assert list(found["plain"]["tokens"].values()) == [16]
    assert all(json.loads(text)["verdict"] in ("yes", "no") for text in found["shaped"]["texts"])
    names = {(name, call["city"]) for name, call in found["calling"]["calls"]}
    assert len(found["calling"]["calls"]) == 2
    assert names <= {("find_city", "Oslo"), ("find_city", "Rome")}
    assert "harmless" in found["failing"]["error"]
    assert replies[CHATS, 200] == 6
    assert set(replies) == {(CHATS, 200), (CHATS, 400)}
