"""slime's ``remote_rm``: the whole answer is the reward, templated prompts and plain ones, and never a made-up number.

The bodies are those that ``slime.rollout.rm_hub.remote_rm`` posts (THUDM/slime at 0b420f1), which is not on PyPI.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import tiny
from serve.border import served
from serve.counting import READING, CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, native, real_server, rendered, troubled

from tureen_core.template import Renderer
from tureen_serve.inference.engine import FinishedText, Group

QUESTION, ANSWER = "why do leaves fall in autumn?", "the wind is lazy"
ASKED = [{"role": "user", "content": QUESTION}]
ONE = {"model": "calm"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real rewards behind a real socket."""
    with real_server(tmp_path_factory.mktemp("rewards")) as found:
        yield found


def remote_rm(url: str, prompt: Any, response: str, label: Any = None) -> Any:
    """What slime does with a sample, without its retries."""
    reply = httpx2.post(url, json={"prompt": prompt, "response": response, "label": label})
    reply.raise_for_status()
    return reply.json()


@pytest.mark.parametrize("prompt", [QUESTION, ASKED, rendered(*ASKED, opened=True)], ids=["text", "messages", "ready"])
@pytest.mark.parametrize("end", ["", "<|im_end|>"])
def test_a_reward_is_a_number_however_the_prompt_comes(address: str, prompt: Any, end: str) -> None:
    (expected,) = native(address, QUESTION, [ANSWER])
    found = remote_rm(f"{address}/slime?model=helpful", prompt, ANSWER + end, "42")
    assert found == pytest.approx(expected["helpful"], abs=1e-4)


def test_several_rewards_are_an_object_to_pick_from(address: str) -> None:
    (expected,) = native(address, QUESTION, [ANSWER])
    found = remote_rm(f"{address}/slime?model=helpful,amusing", QUESTION, ANSWER)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_mix_is_one_number() -> None:
    with served() as client:
        found = client.post("/slime", params={"model": "calm=1,funny=3"}, json={"prompt": "hi", "response": "funny"})
    assert isinstance(found.json(), float)


def test_a_system_prompt_and_turns_before_are_read() -> None:
    engine = CountingEngine()
    prompt = [{"role": "system", "content": "be calm"}, *ASKED, {"role": "assistant", "content": "?"}, *ASKED]
    with served(engine) as client:
        assert client.post("/slime", params=ONE, json={"prompt": prompt, "response": "calm"}).json() == 1.0
    (((group,), _),) = engine.calls
    assert group == Group([[{"role": "assistant", "content": "calm"}]], prompt)


@pytest.mark.parametrize("thinking", ["", "<think>\n\n</think>\n\n"])
def test_a_templated_prompt_meets_no_template_again(thinking: str) -> None:
    """Also where the policy's settings write more behind the mark that opens its answer."""
    engine = CountingEngine()
    prompt = rendered(*ASKED, opened=True) + thinking
    with served(engine) as client:
        client.post("/slime", params=ONE, json={"prompt": prompt, "response": "calm<|im_end|>"})
    (((found,), _),) = engine.calls
    assert found == FinishedText(f"{prompt}calm<|im_end|>")


def test_a_foreign_template_is_a_users_words() -> None:
    engine = CountingEngine()
    prompt = "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    with served(engine) as client:
        client.post("/slime", params=ONE, json={"prompt": prompt, "response": "calm"})
    (((group,), _),) = engine.calls
    assert isinstance(group, Group)
    assert group.prompt == [{"role": "user", "content": prompt}]


def test_rewards_of_two_templates_do_not_share_a_templated_prompt() -> None:
    engine = CountingEngine()
    other = tiny.tokenizer()
    other.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    engine.rewards = {
        "calm": engine.rewards["calm"],
        "funny": replace(engine.rewards["funny"], renderer=Renderer(other, READING)),
    }
    body = {"prompt": rendered(*ASKED, opened=True), "response": "calm"}
    with served(engine) as client:
        both = client.post("/slime", params={"model": "calm,funny"}, json=body)
        messages = client.post("/slime", params={"model": "calm,funny"}, json={**body, "prompt": ASKED})
    assert (both.status_code, both.json()["error"]["param"]) == (422, "prompt")
    assert messages.json() == {"calm": 1.0, "funny": 0.0}


def test_an_empty_response_is_scored_as_one(address: str) -> None:
    (expected,) = native(address, QUESTION, [""])
    found = remote_rm(f"{address}/slime?model=helpful", ASKED, "")
    assert found == pytest.approx(expected["helpful"], abs=1e-4)


def test_what_is_too_long_is_refused_or_cut_as_asked(address: str) -> None:
    with pytest.raises(httpx2.HTTPStatusError, match="422"):
        remote_rm(f"{address}/slime?model=helpful", QUESTION, LONG)
    (expected,) = native(address, QUESTION, [LONG], truncate=True)
    found = remote_rm(f"{address}/slime?model=helpful&truncate=true", QUESTION, LONG)
    assert found == pytest.approx(expected["helpful"], abs=1e-4)


@pytest.mark.parametrize(("trouble", "status"), TROUBLES.items())
def test_trouble_is_an_error_and_no_number(trouble: str, status: int) -> None:
    with troubled(trouble) as client:
        reply = client.post("/slime", params=ONE, json={"prompt": "hi", "response": "calm"})
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "request_id"}


REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"prompt": "hi", "response": "boundless"}, 500, "response"),
    ({"prompt": rendered(*ASKED, opened=True), "response": "boundless"}, 500, "response"),
    ({"prompt": [], "response": "calm"}, 422, "prompt"),
    ({"prompt": "hi"}, 422, "response"),
    ({"prompt": "hi", "response": None}, 422, "response"),
    ({"prompt": "hi", "response": ["calm"]}, 422, "response"),
    ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "response": "a"}, 422, "prompt[0].content[0]"),
]


@pytest.mark.parametrize(("body", "status", "param"), REFUSED)
def test_what_cannot_be_scored_is_an_error_that_names_the_field(
    body: dict[str, Any], status: int, param: str | None
) -> None:
    with served() as client:
        reply = client.post("/slime", params=ONE, json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param


def test_an_error_of_the_prompt_is_laid_to_it(address: str) -> None:
    body = {"prompt": [*ASKED, {"role": "system", "content": "late"}], "response": ANSWER}
    reply = httpx2.post(f"{address}/slime?model=helpful", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "prompt")


def test_a_key_is_asked_for(tmp_path: Any) -> None:
    body = {"prompt": "hi", "response": "calm"}
    with locked(tmp_path) as client:
        refused = client.post("/slime", params=ONE, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.post("/slime", params=ONE, json=body, headers={"authorization": f"Bearer {KEY}"}).json() == 1.0
