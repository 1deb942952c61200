"""vLLM's routes without a model: what the engine is asked, what is answered, and no score where there is none."""

import base64
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.border import served
from serve.counting import CONTEXT, RENDERER, CountingEngine
from serve.foreign import KEY, LONG, TROUBLES, locked, troubled
from starlette.testclient import TestClient

from tureen_core.calibration import compute_sigmoid
from tureen_core.reading import Cut
from tureen_serve.inference.engine import FinishedText, Group

RAW = {"use_activation": False}
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "calm calm"}]
PAIRS = [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
ROOT = ["/classify", "/pooling", "/score", "/rerank"]
RERANKS = ["/rerank", "/v1/rerank", "/v2/rerank", "/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"]
PATHS = [*ROOT, *(f"/vllm{path}" for path in ROOT), "/vllm/v1/score", *RERANKS[1:3], *RERANKS[4:]]


def about(path: str, text: str, **options: Any) -> dict[str, Any]:
    """A body of any route about one text."""
    if "score" in path:
        return {"queries": "hi", "documents": [text], "model": "calm", **options}
    if "rerank" in path:
        return {"query": "hi", "documents": [text], "model": "calm", **options}
    return {"input": [text], "model": "calm", **options}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of the counting engine."""
    with served() as found:
        yield found


def post(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json={"model": "calm", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    reply = client.post(path, json={"model": "calm", **body})
    assert reply.status_code == 400, reply.text
    assert told(reply)["type"] == "BadRequestError"
    return told(reply)


def told(reply: Any) -> dict[str, Any]:
    """The error of a reply that holds nothing but vLLM's error object."""
    assert set(reply.json()) == {"error"}
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == reply.status_code
    return error


def asked(client: TestClient, path: str, **body: Any) -> list[Group | FinishedText]:
    """What the engine was asked."""
    post(client, path, **body)
    groups: list[Group | FinishedText] = client.app.state.server.engine.calls[-1][0]  # type: ignore[attr-defined]
    return groups


# --------------------------------------------------------------------------- /classify


def test_verl_reads_the_last_probability_of_the_last_text(client: TestClient) -> None:
    answer = post(client, "/classify", input="calm calm words", **RAW)
    assert answer["data"][-1]["probs"][-1] == 2.0
    assert answer["object"] == "list"
    assert answer["model"] == "calm"
    assert answer["id"].startswith("classify-")
    assert answer["usage"] == {
        "prompt_tokens": answer["usage"]["total_tokens"],
        "total_tokens": len(RENDERER.render_conversation([{"role": "assistant", "content": "calm calm words"}]).ids),
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


@pytest.mark.parametrize("options", [{}, {"use_activation": None}, {"use_activation": True}, {"activation": True}])
def test_one_column_is_activated_by_a_sigmoid(client: TestClient, options: dict[str, Any]) -> None:
    (row,) = post(client, "/classify", input="calm calm", **options)["data"]
    assert row == {"index": 0, "label": "calm", "probs": [pytest.approx(compute_sigmoid(2.0))], "num_classes": 1}


@pytest.mark.parametrize("options", [RAW, {"activation": False}, {"activation": True, "use_activation": False}])
def test_raw_rewards_are_the_right_way_round(client: TestClient, options: dict[str, Any]) -> None:
    rows = post(client, "/classify", input=["calm calm", "calm", "none"], **options)["data"]
    assert [row["probs"] for row in rows] == [[2.0], [1.0], [0.0]]
    assert [row["index"] for row in rows] == [0, 1, 2]


def test_several_columns_are_activated_by_a_softmax_and_named_by_the_highest(client: TestClient) -> None:
    (row,) = post(client, "/classify", input="funny funny calm", model="calm,funny")["data"]
    odds = [math.exp(1), math.exp(2)]
    assert row["probs"] == pytest.approx([each / sum(odds) for each in odds])
    assert (row["label"], row["num_classes"]) == ("funny", 2)
    (row,) = post(client, "/classify", input="funny funny calm", model="calm,funny", **RAW)["data"]
    assert row["probs"] == [1.0, 2.0]


def test_a_mix_is_one_column(client: TestClient) -> None:
    (row,) = post(client, "/classify", input="calm calm calm funny", model="calm=1,funny=1", **RAW)["data"]
    assert row["probs"] == [pytest.approx((3 - 1) / 2 / 2 + 1 / 2)]
    assert row["label"] == "calm=1,funny=1"


def test_extreme_rewards_neither_overflow_nor_vanish(client: TestClient) -> None:
    (row,) = post(client, "/classify", input="calm " * 30 + "funny", model="calm,funny")["data"]
    assert sum(row["probs"]) == pytest.approx(1)
    assert all(0 <= each <= 1 for each in row["probs"])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("calm", [FinishedText("calm")]),
        (["calm", "funny"], [FinishedText("calm"), FinishedText("funny")]),
        ([5, 6, 7], [FinishedText([5, 6, 7])]),
        ([[5], [6, 7]], [FinishedText([5]), FinishedText([6, 7])]),
        ("", [FinishedText("")]),
    ],
)
def test_texts_and_ids_meet_no_template(client: TestClient, given: Any, read: list[FinishedText]) -> None:
    assert asked(client, "/classify", input=given) == read


def test_special_tokens_are_the_readings_or_none(client: TestClient) -> None:
    assert asked(client, "/classify", input="calm", add_special_tokens=True) == [FinishedText("calm", specials=True)]
    assert asked(client, "/classify", input="calm", add_special_tokens=False) == [FinishedText("calm", specials=False)]


@pytest.mark.parametrize("options", [{}, {"add_special_tokens": True}, {"add_special_tokens": False}])
def test_a_conversation_meets_the_rewards_template(client: TestClient, options: dict[str, Any]) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}], "name": "me"}]
    named = [{**TALK[0], "name": "me"}, TALK[1]]
    assert asked(client, "/classify", messages=[*parts, {**TALK[1], "tool_calls": []}], **options) == [Group([named])]
    assert post(client, "/classify", messages=TALK, **RAW)["data"][0]["probs"] == [2.0]


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({}, None),
        ({"truncation_side": "left"}, None),
        ({"truncate_prompt_tokens": -1}, Cut()),
        ({"truncate_prompt_tokens": 9}, Cut(9)),
        ({"truncate_prompt_tokens": 1, "truncation_side": "right"}, Cut(1, "right")),
        ({"truncate_prompt_tokens": CONTEXT, "truncation_side": "left"}, Cut(CONTEXT, "left")),
    ],
)
def test_every_way_of_cutting(client: TestClient, options: dict[str, Any], cut: Cut | None) -> None:
    assert asked(client, "/classify", input="calm", **options) == [FinishedText("calm", cut=cut)]
    assert asked(client, "/classify", messages=TALK, **options) == [Group([TALK], cut=cut)]
    assert asked(client, "/score", queries="hi", documents="calm calm", **options) == [Group([TALK[1:]], TALK[:1], cut)]


@pytest.mark.parametrize("length", [0, CONTEXT + 1, -2])
def test_a_cut_to_nothing_or_to_more_than_is_read(client: TestClient, length: int) -> None:
    error = refused(client, "/classify", input="calm", truncate_prompt_tokens=length)
    assert error["param"] == "truncate_prompt_tokens"
    assert error["message"].startswith("truncate_prompt_tokens")


def test_what_changes_no_score_is_taken(client: TestClient) -> None:
    options = {"user": "me", "cache_salt": "s", "padding": "max_length", "mm_processor_kwargs": None, "other": [1]}
    answer = post(client, "/classify", input="calm", request_id="mine", **options, **RAW)
    assert answer["id"] == "classify-mine"
    assert answer["data"][0]["probs"] == [1.0]


@pytest.mark.parametrize(("priority", "band"), [(0, "default"), (-3, "interactive"), (7, "batch")])
def test_a_lower_priority_goes_first(
    client: TestClient, priority: int, band: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    score = CountingEngine.score

    async def watched(self: CountingEngine, *given: Any, **options: Any) -> Any:
        seen.append(options["priority"])
        return await score(self, *given, **options)

    monkeypatch.setattr(CountingEngine, "score", watched)
    for path in ("/classify", "/score"):
        post(client, path, **about(path, "calm", priority=priority))
    assert seen == [band, band]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"input": None}, None),
        ({"input": []}, None),
        ({"input": "calm", "messages": TALK}, None),
        ({"input": {"text": "calm"}}, "input"),
        ({"input": ["calm", 1.5]}, "input[1]"),
        ({"input": "calm", "task": "score"}, "task"),
        ({"input": "calm", "task": "encode"}, "task"),
        ({"input": "calm", "task": "token_classify"}, "task"),
        ({"input": "calm", "normalize": True}, "normalize"),
        ({"input": "calm", "padding": "longest"}, "padding"),
        ({"input": "calm", "truncation_side": "middle"}, "truncation_side"),
        ({"input": "calm", "use_activation": "perhaps"}, "use_activation"),
        ({"input": "calm", "priority": 2**63}, "priority"),
        ({"input": "calm", "cache_salt": ""}, "cache_salt"),
        ({"messages": TALK, "chat_template": "{{ messages }}"}, "chat_template"),
        ({"messages": TALK, "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"messages": TALK, "add_generation_prompt": True}, "add_generation_prompt"),
        ({"messages": TALK, "continue_final_message": True}, "continue_final_message"),
        ({"messages": TALK[:1]}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
        ({"input": LONG}, "input"),
        ({"input": ["calm", LONG]}, "input[1]"),
        ({"messages": [TALK[0], {"role": "assistant", "content": LONG}]}, "messages"),
    ],
)
def test_what_cannot_be_read_is_a_400_that_names_its_field(
    client: TestClient, body: dict[str, Any], param: str | None
) -> None:
    assert refused(client, "/classify", **body)["param"] == param


def test_defaults_may_be_sent(client: TestClient) -> None:
    options: dict[str, Any] = {
        "chat_template": None,
        "chat_template_kwargs": {},
        "add_generation_prompt": False,
        "task": "classify",
    }
    assert post(client, "/classify", messages=TALK, continue_final_message=False, **options)["data"]


def test_an_unknown_model_is_a_404_in_vllms_words(client: TestClient) -> None:
    reply = client.post("/classify", json={"input": "calm", "model": "nobody"})
    assert reply.status_code == 404
    assert (told(reply)["type"], told(reply)["param"]) == ("NotFoundError", "model")


# --------------------------------------------------------------------------- /pooling


def test_pooling_gives_the_numbers_bare(client: TestClient) -> None:
    answer = post(client, "/pooling", input=["calm calm", "calm"], task="classify", **RAW)
    assert answer["id"].startswith("pooling-")
    assert answer["data"] == [
        {"index": 0, "object": "pooling", "data": [2.0]},
        {"index": 1, "object": "pooling", "data": [1.0]},
    ]


@pytest.mark.parametrize(("endianness", "mark"), [("little", "<"), ("big", ">"), ("native", "=")])
def test_numbers_in_base64(client: TestClient, endianness: str, mark: str) -> None:
    body = {"input": "calm calm funny", "model": "calm,funny", "endianness": endianness, **RAW}
    (row,) = post(client, "/pooling", encoding_format="base64", **body)["data"]
    assert struct.unpack(f"{mark}2f", base64.b64decode(row["data"])) == (2.0, 1.0)


def test_numbers_as_bytes_with_their_places_in_a_header(client: TestClient) -> None:
    body = {"input": ["calm", "calm calm"], "model": "calm", "embed_dtype": "float16", "endianness": "little", **RAW}
    told = client.post("/pooling", json={**body, "encoding_format": "bytes"})
    bare = client.post("/pooling", json={**body, "encoding_format": "bytes_only"})
    assert told.headers["content-type"] == bare.headers["content-type"] == "application/octet-stream"
    assert told.content == bare.content == struct.pack("<2e", 1.0, 2.0)
    metadata = json.loads(told.headers["metadata"])
    assert [(row["start"], row["end"], row["shape"]) for row in metadata["data"]] == [(0, 2, [1]), (2, 4, [1])]
    assert set(metadata) == {"id", "created", "model", "data", "usage"}
    assert "metadata" not in bare.headers


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"task": "embed"}, "task"),
        ({"task": "token_classify"}, "task"),
        ({"task": "plugin"}, "task"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"embed_dtype": "int8"}, "embed_dtype"),
        ({"endianness": "middle"}, "endianness"),
    ],
)
def test_what_no_reward_can_be_written_as(client: TestClient, options: dict[str, Any], param: str) -> None:
    assert refused(client, "/pooling", input="calm", **options)["param"] == param


# --------------------------------------------------------------------------- /score and /rerank


@pytest.mark.parametrize("path", ["/score", "/vllm/score", "/vllm/v1/score"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_pair_by_any_of_its_names(client: TestClient, path: str, first: str, second: str) -> None:
    answer = post(client, path, **{first: "hi", second: "calm calm"}, **RAW)
    assert answer["data"] == [{"index": 0, "object": "score", "score": 2.0}]
    assert answer["object"] == "list"


def test_one_query_with_all_documents_is_one_group(client: TestClient) -> None:
    answers = [[{"role": "assistant", "content": text}] for text in ("calm", "x", "calm calm")]
    assert asked(client, "/score", queries=["hi"], documents=["calm", "x", "calm calm"]) == [Group(answers, TALK[:1])]
    scores = [row["score"] for row in post(client, "/score", queries="hi", documents=["calm", "x"])["data"]]
    assert scores == pytest.approx([compute_sigmoid(1), 0.5])


def test_queries_each_with_its_own_document_keep_their_order(client: TestClient) -> None:
    queries, documents = ["a", "a", "b", "a"], ["calm", "calm calm", "x", "calm calm calm"]
    groups = asked(client, "/score", queries=queries, documents=documents)
    assert [len(group) for group in groups] == [2, 1, 1]
    rows = post(client, "/score", queries=queries, documents=documents, **RAW)["data"]
    assert [row["score"] for row in rows] == [1.0, 2.0, 0.0, 3.0]


@pytest.mark.parametrize("path", RERANKS)
def test_documents_are_ranked_best_first(client: TestClient, path: str) -> None:
    documents = ["x", "calm calm", "calm"]
    answer = post(client, path, query="hi", documents=documents, **RAW)
    assert set(answer) == {"id", "model", "usage", "results"}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert answer["results"] == [
        {"index": index, "document": {"text": documents[index], "multi_modal": None}, "relevance_score": score}
        for index, score in ((1, 2.0), (2, 1.0), (0, 0.0))
    ]


def test_documents_may_be_objects_as_coheres_and_jinas(client: TestClient) -> None:
    plain = post(client, "/v1/rerank", query="hi", documents=["x", "calm"])["results"]
    objects = [{"text": "x", "title": "ignored"}, {"text": "calm"}]
    assert post(client, "/v1/rerank", query="hi", documents=objects)["results"] == plain
    for wrong in ({"text": 3}, {"image": "x"}, 3):
        assert refused(client, "/v1/rerank", query="hi", documents=["x", wrong])["param"] == "documents[1]"


@pytest.mark.parametrize(("top", "kept"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_the_best_ones_only(client: TestClient, top: int, kept: int) -> None:
    results = post(client, "/rerank", query="hi", documents=["x", "calm calm", "calm"], top_n=top)["results"]
    assert [row["index"] for row in results] == [1, 2, 0][:kept]


def test_equals_keep_their_order(client: TestClient) -> None:
    results = post(client, "/rerank", query="hi", documents=["x", "calm", "y", "calm"])["results"]
    assert [row["index"] for row in results] == [1, 3, 0, 2]


def test_each_text_has_its_own_bound(client: TestClient) -> None:
    bounds = {"max_tokens_per_query": 2, "max_tokens_per_doc": 3}
    (group,) = asked(client, "/score", queries="abcdefg", documents=["hijklmn", "xy"], **bounds)
    assert isinstance(group, Group)
    assert [turn["content"] for turn in group.prompt] == ["ab"]
    assert [answer[0]["content"] for answer in group.answers] == ["hij", "xy"]
    results = post(client, "/rerank", query="abc", documents=["hijklmn"], max_tokens_per_doc=3)["results"]
    assert results[0]["document"]["text"] == "hijklmn"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/score", {}, None),
        ("/score", {"queries": "a"}, None),
        ("/score", {"queries": "a", "text_2": "b"}, None),
        ("/score", {"queries": [], "documents": ["b"]}, None),
        ("/score", {"queries": "a", "documents": []}, None),
        ("/score", {"queries": ["a", "b"], "documents": ["c", "d", "e"]}, None),
        ("/score", {"queries": ["a", "b"], "documents": "c"}, None),
        ("/score", {"queries": "a", "documents": ["b", LONG]}, "documents[1]"),
        ("/score", {"text_1": "a", "text_2": LONG}, "text_2"),
        ("/score", {"queries": "a", "documents": "b", "max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ("/score", {"queries": "a", "documents": "b", "max_tokens_per_query": CONTEXT}, "max_tokens_per_query"),
        ("/score", {"queries": "a", "documents": "b", "instruction": "be strict"}, "instruction"),
        ("/score", {"queries": "a", "documents": "b", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ("/score", {"queries": "a", "documents": {"content": []}}, "documents"),
        ("/score", {"queries": "a", "documents": "b", "model": "calm,funny"}, "model"),
        ("/rerank", {"query": "a"}, "documents"),
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/rerank", {"query": "a", "documents": []}, None),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
        ("/rerank", {"query": "a", "documents": ["b"], "model": "calm,funny"}, "model"),
    ],
)
def test_pairs_that_cannot_be_read(client: TestClient, path: str, body: dict[str, Any], param: str | None) -> None:
    assert refused(client, path, **body)["param"] == param


def test_the_native_score_route_says_where_such_a_body_belongs(client: TestClient) -> None:
    reply = client.post("/v1/score", json={"queries": "a", "documents": "b"})
    assert reply.status_code == 422
    assert "/vllm/v1/score" in reply.json()["error"]["message"]


# --------------------------------------------------------------------------- /tokenize, /detokenize, /health, /models


def test_a_prompts_tokens_are_those_that_classify_reads(client: TestClient) -> None:
    for text in ("why do leaves fall?", "  white \n", LONG):
        answer = post(client, "/tokenize", prompt=text, return_token_strs=True)
        assert answer["tokens"] == RENDERER.tokenize_text(text)
        assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
        assert answer["max_model_len"] == CONTEXT
    bare = post(client, "/tokenize", prompt="hi", add_special_tokens=False)
    assert bare["tokens"] == RENDERER.render_text("hi", specials=False).ids
    assert bare["token_strs"] is None


def test_a_conversations_tokens_are_opened_unless_that_is_turned_off(client: TestClient) -> None:
    assert post(client, "/tokenize", messages=TALK[:1])["tokens"] == RENDERER.tokenize_prompt(TALK[:1])
    closed = post(client, "/tokenize", messages=TALK, add_generation_prompt=False)
    assert closed["tokens"] == RENDERER.render_conversation(TALK).ids


def test_tokens_become_their_text_again(client: TestClient) -> None:
    ids = RENDERER.render_conversation(TALK).ids
    assert post(client, "/detokenize", tokens=ids)["prompt"] == RENDERER.tokenizer.decode(ids)
    assert post(client, "/detokenize", tokens=[])["prompt"] == ""


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, None),
        ("/tokenize", {"prompt": "a", "messages": TALK}, None),
        ("/tokenize", {"messages": TALK, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": [10**9]}, "tokens[0]"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
    ],
)
def test_tokens_that_are_none(client: TestClient, path: str, body: dict[str, Any], param: str | None) -> None:
    assert refused(client, path, **body)["param"] == param


def test_health_is_empty_and_a_dead_server_is_none() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        assert (client.get("/vllm/health").status_code, client.get("/vllm/health").content) == (200, b"")
        engine.down = "the runtime ended"
        assert client.get("/vllm/health").status_code == 503


def test_models_are_the_rewards_and_the_aliases() -> None:
    with served(aliases={"rm": "calm=1,funny=1"}) as client:
        answer = client.get("/vllm/v1/models").json()
    assert answer["object"] == "list"
    assert [card["id"] for card in answer["data"]] == ["calm", "funny", "rm"]
    assert {card["max_model_len"] for card in answer["data"]} == {CONTEXT}


# --------------------------------------------------------------------------- no score where there is none


@pytest.mark.parametrize(("trouble", "status"), TROUBLES.items())
def test_a_server_in_trouble_answers_with_an_error(trouble: str, status: int) -> None:
    with troubled(trouble) as client:
        for path in PATHS:
            reply = client.post(path, json=about(path, "calm"))
            assert reply.status_code == status
            assert told(reply)["message"]
            assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize("path", PATHS)
def test_a_reward_that_is_not_finite_is_an_error(client: TestClient, path: str) -> None:
    reply = client.post(path, json=about(path, "boundless"))
    assert reply.status_code == 500
    assert told(reply)["type"] == "InternalServerError"


@pytest.mark.parametrize("path", PATHS)
def test_bodies_that_are_no_json(client: TestClient, path: str) -> None:
    for content, kind in ((b"{", "application/json"), (b"{}", "text/plain"), (b'{"a": NaN}', "application/json")):
        reply = client.post(path, content=content, headers={"content-type": kind})
        assert reply.status_code == 400
        assert told(reply)["type"] == "BadRequestError"


def test_a_lone_surrogate_is_named(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    reply = client.post("/classify", content=b'{"model": "calm", "input": ["a", "\\ud800"]}', headers=headers)
    assert reply.status_code == 400
    assert told(reply)["param"] == "input[1]"


def test_every_route_wants_the_key(tmp_path: Path) -> None:
    with locked(tmp_path) as client:
        for path in [*PATHS, "/tokenize", "/detokenize"]:
            assert client.post(path, json=about(path, "calm")).status_code == 401
        assert keyed(client, "/classify") == 200
        assert client.get("/vllm/v1/models").status_code == 401


def keyed(client: TestClient, path: str) -> int:
    return client.post(path, json=about(path, "calm"), headers={"authorization": f"Bearer {KEY}"}).status_code
