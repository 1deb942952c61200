"""Property: equivalent spellings of one conversation give one reply on every route and dialect that scores, and one
reward by every adapter. The engine and its tiny rewards are real, so equal replies are equal ids.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from serve.artifacts import build
from serve.border import listening
from serve.test_api_reading_headers import ROUTES
from serve.test_message_spellings import LETTERS, spelled

from tureen.adapters import openrlhf, trl, verl
from tureen_serve.app import load_engine
from tureen_serve.settings import load_settings

END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
RUNS = st.lists(st.sampled_from([END, PAD]), max_size=3)
SPACES = st.sampled_from(["", " ", "\n", " \n\n"])
# of a reply: what is new each time, and what repeats the request
VOLATILE = {"id", "created", "e2e_latency", "document", "response", "responses_create_params", "usage", "index"}
EXAMPLES = 5  # for each route; its requests run a model
NATIVE = ("/v1/score", "/v1/preferences")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of two tiny rewards."""
    engine = load_engine(load_settings(build(tmp_path_factory.mktemp("artifacts"))), lambda _: None)
    with listening(engine, aliases={"default": "helpful"}) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    import httpx2

    with httpx2.Client(base_url=address, timeout=60) as found:
        yield found


def bare(value: Any) -> Any:
    """A reply without what is new each time."""
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if name not in VOLATILE}
    return [bare(each) for each in value] if isinstance(value, list) else value


def ask(client: Any, path: str, body: Any) -> Any:
    reply = client.post(path, json=body, params={"model": "helpful", "truncate": "true"})
    assert reply.status_code == 200, reply.text
    return bare(reply.json())


@st.composite
def dirty_end(draw: st.DrawFn, text: str, rendered: bool = False) -> str:
    """A text with marks of the end, and the space between them, after it.

    In a ``rendered`` text no space stands before the first mark: the template writes an answer's own space so.
    """
    for number, mark in enumerate(draw(RUNS)):
        text += ("" if rendered and not number else draw(SPACES)) + mark + draw(SPACES)
    return text


@st.composite
def dirty_text(draw: st.DrawFn, rendered: str) -> str:
    """A rendered text, with padding before it, BOS missing or twice, and marks of the end after it."""
    closed = rendered.rstrip()
    text = draw(st.sampled_from([rendered, closed, closed.removesuffix(END)]))
    if text.endswith(END):
        text = draw(dirty_end(text))
    return draw(st.sampled_from([text, text.removeprefix(START), START + text, "".join(draw(RUNS)) + text]))


def render(*turns: dict[str, Any], opened: bool = False) -> str:
    text: str = tiny.tokenizer().apply_chat_template(list(turns), tokenize=False, add_generation_prompt=opened)
    return text


def turns(asked: str, said: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"role": "user", "content": asked}, {"role": "assistant", "content": said}


# --------------------------------------------------------------------------- routes and dialects

SAMPLES = ("/slime", "/gym/verify")
KNOWN = {path for path in ROUTES if "{model}" not in path}  # with a model in the path they are the same routes
QUERY_AND_ANSWERS = [path for path in ROUTES if path in KNOWN and ROUTES[path][2] and path not in SAMPLES]
WHOLE = {
    "/classify": "input",
    "/vllm/classify": "input",
    "/pooling": "input",
    "/vllm/pooling": "input",
    "/tei": "inputs",
    "/tei/predict": "inputs",
    "/sglang/classify": "text",
    "/sglang/v1/embeddings": "input",
    "/infinity/classify": "input",
    "/llamafactory/v1/score/evaluation": "messages",
    "/get_reward": "query",
}
LISTS = ("/tei", "/tei/predict", "/infinity/classify", "/llamafactory/v1/score/evaluation")
SIDES = {
    **dict.fromkeys(("/score", "/vllm/score", "/vllm/v1/score"), ("queries", "documents")),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), ("query", "documents")),
    **dict.fromkeys(("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), ("query", "documents")),
    "/tei/rerank": ("query", "texts"),
    "/sglang/v1/rerank": ("query", "documents"),
    "/infinity/rerank": ("query", "documents"),
}
TALKS = ("/classify", "/vllm/classify", "/pooling", "/vllm/pooling")
JOINED = ("/sglang/v1/score",)


def test_every_route_that_scores_is_here() -> None:
    assert {*WHOLE, *SIDES, *TALKS, *JOINED, *SAMPLES} == KNOWN


@pytest.mark.parametrize("path", WHOLE)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
def test_a_rendered_text_has_one_reply(client: Any, path: str, data: st.DataObject, asked: str, said: str) -> None:
    plain = render(*turns(asked, said))
    text = data.draw(dirty_text(plain))

    def reply(given_text: str) -> Any:
        given_value: Any = [given_text] if path in LISTS and "tei" not in path else given_text
        return ask(client, path, {WHOLE[path]: given_value, "model": "helpful"})

    assert reply(text) == reply(plain)


@pytest.mark.parametrize("path", SIDES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
def test_a_query_and_its_document_have_one_reply(
    client: Any, path: str, data: st.DataObject, asked: str, said: str
) -> None:
    query, documents = SIDES[path]

    def reply(asked_text: str, said_text: str) -> Any:
        return ask(client, path, {query: asked_text, documents: [said_text], "model": "helpful"})

    dirty = [data.draw(st.sampled_from(["", END, PAD + "\n"])) + data.draw(dirty_end(each)) for each in (asked, said)]
    assert reply(*dirty) == reply(asked, said)


@pytest.mark.parametrize("path", [*TALKS, *SAMPLES, *NATIVE])
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
def test_messages_have_one_reply(client: Any, path: str, data: st.DataObject, asked: str, said: str) -> None:
    def reply(prompt: dict[str, Any], answer: dict[str, Any]) -> Any:
        if path == "/slime":
            whole = answer["content"]
            text = whole if isinstance(whole, str) else "".join(part["text"] for part in whole)
            return ask(client, path, {"prompt": [prompt], "response": text})
        if path == "/gym/verify":
            given_value = {"responses_create_params": {"input": [prompt]}, "response": {"output": [answer]}}
            return ask(client, path, given_value)
        if path == "/v1/score":
            item = {"messages": [prompt, answer]}, {"prompt": [prompt], "candidates": [[answer]]}
            return [_unmarked(client.post(path, json={"items": [each]})) for each in item]
        if path == "/v1/preferences":
            other = {"role": "assistant", "content": "other"}
            items = [{"prompt": [prompt], "candidates": [[answer], [other]]}]
            forms = ("full", "trl", "ranking")
            return [_unmarked(client.post(path, json={"items": items, "format": form})) for form in forms]
        return ask(client, path, {"messages": [prompt, answer], "model": "helpful"})

    drawn = data.draw(spelled("user", asked)), data.draw(spelled("assistant", said))
    assert reply(*drawn) == reply(*turns(asked, said))


def _unmarked(reply: Any) -> Any:
    """A native reply without the words that tell which spelling it was."""
    assert reply.status_code == 200, reply.text

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(each) for name, each in value.items() if name not in ("normalised", "cached_tokens")}
        return [clean(each) for each in value] if isinstance(value, list) else value

    found = clean(reply.json())
    for label in found["data"]:
        for name in ("prompt", "chosen", "rejected"):
            if isinstance(label.get(name), list):  # the request's own messages
                label[name] = len(label[name])
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
def test_a_query_that_items_continue_has_one_reply(client: Any, data: st.DataObject, asked: str, said: str) -> None:
    (prompt, _), path = turns(asked, said), JOINED[0]
    opened = render(prompt, opened=True)
    plain, drawn = (
        ask(client, path, {"query": opened, "items": [each], "model": "helpful"})
        for each in (said, data.draw(dirty_end(said, rendered=True)))
    )
    assert plain == drawn


# --------------------------------------------------------------------------- adapters


def by_trl(address: str, prompt: Any, answer: Any) -> float:
    reward = trl.RewardFunction("helpful", base_url=address, calibrated=False)
    (found,) = reward([[prompt]], [[answer]])
    assert found is not None
    return found


def by_trl_later(address: str, prompt: Any, answer: Any) -> float:
    reward = trl.AsyncRewardFunction("helpful", base_url=address, calibrated=False)
    (found,) = asyncio.run(reward([[prompt]], [[answer]]))
    assert found is not None
    return found


def joined(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def by_verl(address: str, prompt: Any, answer: Any) -> float:
    found = verl.compute_score_blocking(
        "", joined(answer), None, {"prompt": [prompt]}, objective="helpful", base_url=address, calibrated=False
    )
    return found["score"]


def by_verl_later(address: str, prompt: Any, answer: Any) -> float:
    scoring = verl.compute_score(
        "", joined(answer), None, {"prompt": [prompt]}, objective="helpful", base_url=address, calibrated=False
    )
    return asyncio.run(scoring)["score"]


def by_openrlhf(address: str, prompt: Any, answer: Any) -> float:
    opened = render({**prompt, "content": joined(prompt).replace(END, "").replace(PAD, "").strip()}, opened=True)
    text = joined(answer).replace("\n" + END, END)  # in a rendered text this space is the answer's
    found = openrlhf.reward_func(
        [opened + text], [opened], [None], objective="helpful", base_url=address, calibrated=False
    )
    return float(found["rewards"][0])


def by_openrlhf_untemplated(address: str, prompt: Any, answer: Any) -> float:
    asked, text = joined(prompt), joined(answer)
    found = openrlhf.reward_func(
        [asked + text], [asked], [None], objective="helpful", base_url=address, calibrated=False, templated=False
    )
    return float(found["rewards"][0])


ADAPTERS: list[Callable[[str, Any, Any], float]] = [
    *(by_trl, by_trl_later, by_verl, by_verl_later, by_openrlhf, by_openrlhf_untemplated)
]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda each: each.__name__)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
def test_every_adapter_gives_one_reward(
    address: str, client: Any, adapter: Callable[[str, Any, Any], float], data: st.DataObject, asked: str, said: str
) -> None:
    body = {"items": [{"messages": list(turns(asked, said))}], "rewards": ["helpful"]}
    (item,) = client.post("/v1/score", json=body).json()["data"]
    expected = item["candidates"][0]["scores"]["helpful"]["raw"]
    drawn = data.draw(spelled("user", asked)), data.draw(spelled("assistant", said))
    assert adapter(address, *drawn) == pytest.approx(expected, abs=1e-6)
