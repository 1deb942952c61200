"""The openai SDK before a real server: texts, streams, tools, structures, models, batches, and the errors it raises."""

from pathlib import Path
from typing import Any

import pytest
from clients.programs import ENVIRONMENTS, SPENT, ask, must_run, run_program
from serve.processes import Process

SCRIPT = Path(__file__).parent / "openai_script.py"
MIX = "tiny:calm=0.7+dry=0.3"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("openai"), reason="`make test-clients` installs the openai SDK and runs this"),
]
# class, status and code of what the SDK raises
ERRORS = {
    "a wrong value": ["BadRequestError", 400, "invalid_value"],
    "too long": ["BadRequestError", 400, "context_length_exceeded"],
    "no such expert": ["BadRequestError", 400, "unknown_objective"],
    "no stored response": ["BadRequestError", 400, "unsupported_parameter"],
    "no such model": ["NotFoundError", 404, "model_not_found"],
    "a reward's name": ["NotFoundError", 404, "model_not_found"],
    "no such card": ["NotFoundError", 404, "model_not_found"],
    "no such file": ["NotFoundError", 404, "file_not_found"],
    "no such route": ["NotFoundError", 404, "unknown_route"],
    "embeddings": ["NotFoundError", 404, "unknown_route"],
    "an unknown key": ["AuthenticationError", 401, "invalid_api_key"],
    "a spent quota": ["RateLimitError", 429, "requests_quota_exceeded"],
}
ASKED = {"model": MIX, "messages": [{"role": "user", "content": "why do leaves fall?"}], "temperature": 0}
CALL = ["find_city", {"city": "Rome"}]


@pytest.fixture(scope="module")
def ran(server: Process) -> tuple[Any, Any]:
    """What the script found, and the replies by route and status."""
    python = ENVIRONMENTS / "openai/bin/python"
    return run_program(server, [python, "-"], SCRIPT, MODEL=MIX, SPENT=SPENT["openai"][0])


def test_texts_are_the_same_whole_and_streamed_on_each_route(server: Process, ran: tuple[Any, Any]) -> None:
    found, _ = ran
    text = ask(server, "/v1/chat/completions", {**ASKED, "max_tokens": 12})["choices"][0]["message"]["content"]
    chat, responses, completions = (found[name] for name in ("chat", "responses", "completions"))
    assert {chat["whole"], chat["streamed"], responses["whole"], responses["streamed"]} == {text}
    assert chat["preferences"] == {"calm": 0.7, "dry": 0.3}
    assert chat["usage"][0] == chat["usage"][1]
    assert len(chat["logprobs"]) == chat["usage"][0]["completion_tokens"] == 12
    assert responses["events"] == ["response.created", "response.incomplete"]
    assert completions["whole"] == completions["streamed"] != ""
    assert "".join(completions["read"]["tokens"]) == "why do leaves"
    assert all(value < 0 for value in completions["read"]["token_logprobs"][1:])


def test_tools_and_structures_are_read(ran: tuple[Any, Any]) -> None:
    found, _ = ran
    assert found["tools"] == {"finish": "tool_calls", "calls": [CALL, CALL], "answered": "length"}
    assert found["responses"]["calls"] == [CALL]
    chat, streamed, response, gathered = found["structures"]
    assert chat == streamed
    assert response == gathered


def test_models_are_listed_and_a_mix_has_a_card(ran: tuple[Any, Any]) -> None:
    found, _ = ran
    assert found["models"]["list"] == ["tiny", "tiny:still", "helpful"]
    assert found["models"]["mix"]["presets"] == {"calm=0.7+dry=0.3": {"calm": 0.7, "dry": 0.3}}


def test_a_batch_runs_and_the_line_that_fails_is_in_the_file_of_errors(ran: tuple[Any, Any]) -> None:
    found, _ = ran
    assert (found["batches"]["status"], found["batches"]["listed"]) == ("completed", [True, True])
    assert found["batches"]["counts"] == {"completed": 1, "failed": 1, "total": 2}
    good, bad = found["batches"]["lines"]
    assert good["response"]["body"]["choices"][0]["message"]["content"] == found["chat"]["whole"]
    assert bad["response"]["body"]["error"]["param"] == "temperature"


def test_the_sdk_raises_its_own_classes_and_nothing_else_failed(ran: tuple[Any, Any]) -> None:
    found, replies = ran
    assert found["errors"] == ERRORS
    refused = sum(count for (_, status), count in replies.items() if status >= 400)  # on the routes that there are
    assert refused == len(ERRORS) - 1, replies
