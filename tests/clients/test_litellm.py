"""LiteLLM's SDK, LangChain and Instructor before a real server: texts, streams, tools, structures, ranks and errors."""

from pathlib import Path
from typing import Any

import pytest
from clients.programs import ENVIRONMENTS, ask, must_run, run_program
from serve.processes import Process

SCRIPTS = Path(__file__).parent
PYTHON = ENVIRONMENTS / "litellm/bin/python"
MIX = "tiny:calm=0.7+dry=0.3"
ASKED = {"messages": [{"role": "user", "content": "why do leaves fall?"}], "temperature": 0, "max_tokens": 12}
DOCUMENTS = ["the wind is lazy", "no", "leaves fall"]
# class and status of what LiteLLM raises
ERRORS = {
    "too long": ["ContextWindowExceededError", 400],
    "no such model": ["NotFoundError", 404],
    "an unknown key": ["AuthenticationError", 401],
    "a wrong value": ["BadRequestError", 400],
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("litellm"), reason="`make test-clients` installs LiteLLM and runs this"),
]


def write(server: Process) -> str:
    """What the mix writes, without a client."""
    text: str = ask(server, "/v1/chat/completions", {"model": MIX, **ASKED})["choices"][0]["message"]["content"]
    return text


def count_refused(replies: Any) -> int:
    return sum(count for (_, status), count in replies.items() if status >= 400)


def is_answer(found: Any) -> bool:
    return set(found) == {"verdict", "size"} and found["verdict"] in ("yes", "no") and found["size"] in (1, 2)


def test_litellms_sdk_writes_ranks_and_raises_its_own_classes(server: Process) -> None:
    local = "True"  # its table of prices is not fetched
    found, replies = run_program(
        server, [PYTHON, "-"], SCRIPTS / "litellm_script.py", MODEL=MIX, LITELLM_LOCAL_MODEL_COST_MAP=local
    )
    assert found["whole"] == found["streamed"] == write(server)
    ranks = ask(server, "/v1/rerank", {"model": "helpful", "query": "why?", "documents": DOCUMENTS, "top_n": 2})
    assert found["ranked"] == [[each["index"], each["relevance_score"]] for each in ranks["results"]]
    assert found["errors"] == ERRORS
    assert count_refused(replies) == len(ERRORS), replies


def test_langchain_and_instructor_write_call_and_read(server: Process) -> None:
    found, replies = run_program(server, [PYTHON, "-"], SCRIPTS / "langchain_script.py", MODEL=MIX)
    chain = found["langchain"]
    texts = {chain[api][how] for api in ("chat", "responses") for how in ("whole", "streamed")}
    assert texts == {write(server)}
    assert chain["chat"]["usage"]["output_tokens"] == chain["responses"]["usage"]["output_tokens"] == 12
    ((name, arguments),) = chain["calls"]
    assert (name, list(arguments)) == ("find_city", ["city"])
    assert arguments["city"] in ("Oslo", "Rome")
    assert all(map(is_answer, [*chain["structures"], *found["instructor"].values()]))
    assert chain["too long"] == "True"  # LangChain's class for it, and OpenAI's
    assert count_refused(replies) == 1, replies
