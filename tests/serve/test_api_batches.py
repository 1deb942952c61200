"""``/v1/batches``: made, listed, cancelled, once for each idempotency key; and the openai SDK on a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serve.border import listening, served
from serve.counting import CountingEngine
from serve.requests import line, names, score, scores, told
from starlette.testclient import TestClient
from waiting import block_until

ENDED = {"completed", "failed", "expired", "cancelled"}
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def client(engine: CountingEngine, tmp_path: Path) -> Iterator[TestClient]:
    with served(engine, batches=options(tmp_path)) as found:
        block_until(lambda: found.get("/v1/batches").status_code != 503)
        yield found


def options(folder: Path) -> dict[str, Any]:
    return {"enabled": True, "folder": folder / "data", "poll_seconds": 0.05, "chunk_lines": 4}


def request(client: TestClient, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    reply = client.post("/v1/files", files={"file": ("in.jsonl", content or scores(6))}, data={"purpose": "batch"})
    return {"input_file_id": reply.json()["id"], "endpoint": "/v1/score", "completion_window": "24h", **more}


def ended(client: TestClient, name: str) -> dict[str, Any]:
    def batch() -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/v1/batches/{name}").json()
        return found

    block_until(lambda: batch()["status"] in ENDED)
    return batch()


def error(reply: Any) -> tuple[int, str, str | None]:
    said = reply.json()["error"]
    return reply.status_code, said["code"], said["param"]


def test_a_batch_is_made_runs_and_has_its_files(client: TestClient) -> None:
    made = client.post("/v1/batches", json=request(client, metadata={"job": "7"})).json()
    assert (made["object"], made["status"], made["metadata"]) == ("batch", "validating", {"job": "7"})
    batch = ended(client, made["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 6, "completed": 5, "failed": 1}
    assert batch["usage"]["total_tokens"] > 0
    times = [batch[f"{state}_at"] for state in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    output = client.get(f"/v1/files/{batch['output_file_id']}/content").content
    errors = client.get(f"/v1/files/{batch['error_file_id']}/content").content
    assert (names(output), names(errors)) == (["n1", "n2", "n3", "n4", "n6"], ["n5"])


def test_a_line_says_what_the_route_says(client: TestClient) -> None:
    body = score("calm calm", "funny", preferences={"calm": 1})
    made = client.post("/v1/batches", json=request(client, line("a", body))).json()
    batch = ended(client, made["id"])
    (answer,) = told(client.get(f"/v1/files/{batch['output_file_id']}/content").content)
    reply = client.post("/v1/score", json=body).json()
    assert answer["response"]["body"] == reply


def test_a_bad_input_fails_the_batch_with_the_lines_at_fault(client: TestClient, engine: CountingEngine) -> None:
    content = scores(2) + b"{}\n" + line("z", score("a"), "/v1/preferences")
    batch = ended(client, client.post("/v1/batches", json=request(client, content)).json()["id"])
    assert (batch["status"], engine.calls) == ("failed", [])
    assert [(each["line"], each["code"]) for each in batch["errors"]["data"]] == [
        (3, "invalid_value"),
        (4, "mismatched_endpoint"),
    ]
    assert batch["output_file_id"] is None


def test_a_line_that_cannot_be_run_is_in_the_error_file_and_the_rest_runs(client: TestClient) -> None:
    wrong: list[Any] = [{}, score("a", nonsense=1), {"items": [{"prompt": "hi"}]}, score("a", rewards=["nobody"])]
    lines = [line(f"w{number}", body) for number, body in enumerate(wrong)]
    content = b"\xef\xbb\xbf" + lines[0] + b"\n" + scores(2) + b"".join(lines[1:]) + b"  \r\n"
    batch = ended(client, client.post("/v1/batches", json=request(client, content)).json()["id"])
    assert (batch["status"], batch["errors"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 6, "completed": 2, "failed": 4}
    found = told(client.get(f"/v1/files/{batch['error_file_id']}/content").content)
    for each, body in zip(found, wrong, strict=True):
        reply = client.post("/v1/score", json=body)
        assert each["response"]["status_code"] == reply.status_code
        assert each["response"]["body"]["error"] == reply.json()["error"]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"input_file_id": "file-x"}, 404, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "0h"}, 400, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, 400, "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata.k"),
        ({"metadata": {str(number): "v" for number in range(17)}}, 400, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, 400, "output_expires_after.seconds"),
        ({"priority": "interactive"}, 400, "priority"),
    ],
)
def test_what_cannot_be_a_batch_is_refused_by_name(
    client: TestClient, changes: dict[str, Any], status: int, param: str
) -> None:
    reply = client.post("/v1/batches", json=request(client) | changes)
    assert reply.status_code == status
    assert reply.json()["error"]["param"].startswith(param)
    assert client.get("/v1/batches").json()["data"] == []


def test_a_window_that_is_none_is_told_what_one_is(client: TestClient) -> None:
    reply = client.post("/v1/batches", json=request(client) | {"completion_window": "tomorrow"})
    message = "completion_window: 'tomorrow' is not a time limit; send a number of hours or minutes, as 24h or 90m"
    assert reply.json()["error"]["message"] == message


def test_batches_are_listed_in_pages(client: TestClient) -> None:
    made = [client.post("/v1/batches", json=request(client)).json()["id"] for _ in range(3)]
    page = client.get("/v1/batches?limit=2").json()
    assert (page["object"], [each["id"] for each in page["data"]], page["has_more"]) == ("list", made[:0:-1], True)
    assert (page["first_id"], page["last_id"]) == (made[2], made[1])
    rest = client.get(f"/v1/batches?limit=2&after={page['last_id']}").json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (made[:1], False)
    for query in ("limit=0", "limit=101", "limit=x"):
        assert error(client.get(f"/v1/batches?{query}")) == (400, "invalid_value", "limit")
    assert error(client.get("/v1/batches?after=batch_x"))[::2] == (404, "after")


def test_an_unknown_batch_is_not_found(client: TestClient) -> None:
    assert error(client.get("/v1/batches/batch_x")) == (404, "batch_not_found", "batch_id")
    assert error(client.post("/v1/batches/batch_x/cancel")) == (404, "batch_not_found", "batch_id")


def test_a_batch_is_cancelled_and_keeps_what_is_finished(client: TestClient, engine: CountingEngine) -> None:
    engine.pause_call = 2
    made = client.post("/v1/batches", json=request(client, scores(40, bad=99))).json()["id"]
    block_until(lambda: engine.running)
    assert client.post(f"/v1/batches/{made}/cancel").json()["status"] == "cancelling"
    batch = ended(client, made)
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    counts = batch["request_counts"]
    assert counts["completed"] % 4 == 0
    assert counts["completed"] + counts["failed"] == 40
    kept = [
        client.get(f"/v1/files/{batch[f'{kind}_file_id']}/content").content if batch[f"{kind}_file_id"] else b""
        for kind in ("output", "error")
    ]
    assert names(kept[0]) + names(kept[1]) == [f"n{n}" for n in range(1, 41)]
    assert json.loads(kept[1].splitlines()[0])["error"]["code"] == "batch_cancelled"
    assert client.post(f"/v1/batches/{made}/cancel").json()["status"] == "cancelled"


def test_what_has_ended_is_not_cancelled(client: TestClient) -> None:
    made = client.post("/v1/batches", json=request(client)).json()["id"]
    ended(client, made)
    assert error(client.post(f"/v1/batches/{made}/cancel")) == (409, "batch_not_cancellable", "batch_id")


# --------------------------------------------------------------------------- idempotency


def test_the_same_request_under_one_key_makes_one_batch(client: TestClient) -> None:
    body, key = request(client), {"idempotency-key": "job-7"}
    made = [client.post("/v1/batches", json=body, headers=key).json()["id"] for _ in range(3)]
    assert len(set(made)) == 1
    respelled = json.dumps(dict(reversed(body.items())), indent=1).encode()
    again = client.post("/v1/batches", content=respelled, headers=key | {"content-type": "application/json"})
    assert again.json()["id"] == made[0]
    assert len(client.get("/v1/batches").json()["data"]) == 1


def test_without_a_key_every_request_makes_its_own(client: TestClient) -> None:
    body = request(client)
    assert len({client.post("/v1/batches", json=body).json()["id"] for _ in range(2)}) == 2


def test_another_request_under_the_key_is_refused(client: TestClient) -> None:
    key = {"idempotency-key": "job-7"}
    client.post("/v1/batches", json=request(client), headers=key)
    reply = client.post("/v1/batches", json=request(client), headers=key)
    assert error(reply) == (400, "idempotency_key_reused", "Idempotency-Key")


def test_the_same_request_in_flight_is_told_to_wait(client: TestClient) -> None:
    """Another replica has claimed the key, and has not answered yet."""
    body, key = request(client), {"idempotency-key": "job-7"}
    store = client.app.state.batches.opened().store  # type: ignore[attr-defined]
    claimed: list[str] = []
    create = store.create_batch

    def slow(*told: Any) -> Any:
        inner = client.post("/v1/batches", json=body, headers=key)
        claimed.append(inner.json()["error"]["code"])
        assert (inner.status_code, inner.headers["retry-after"]) == (409, "1")
        return create(*told)

    store.create_batch = slow
    assert client.post("/v1/batches", json=body, headers=key).status_code == 200
    assert claimed == ["idempotency_in_flight"]


def test_a_request_that_failed_may_be_sent_again_under_its_key(client: TestClient) -> None:
    body, key = request(client), {"idempotency-key": "job-7"}
    assert client.post("/v1/batches", json=body | {"input_file_id": "file-x"}, headers=key).status_code == 404
    assert client.post("/v1/batches", json=body, headers=key).status_code == 200


def test_a_key_that_is_none_is_refused(client: TestClient) -> None:
    body = request(client)
    for key in ("", "k" * 256):
        reply = client.post("/v1/batches", json=body, headers={"idempotency-key": key})
        assert error(reply) == (400, "invalid_value", "idempotency-key")


# --------------------------------------------------------------------------- the openai SDK


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of a server on a real socket."""
    with (
        listening(CountingEngine(), batches=options(tmp_path_factory.mktemp("sdk"))) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=5, timeout=60) as found,
    ):
        yield found


def lasting(sdk: openai.OpenAI, batch: Any) -> Any:
    block_until(lambda: sdk.batches.retrieve(batch.id).status in ENDED)
    return sdk.batches.retrieve(batch.id)


def test_the_sdk_runs_a_batch_from_end_to_end(sdk: openai.OpenAI) -> None:
    bodies = [{"model": "words", "messages": HI, "preferences": {"calm": 1}, "max_tokens": n} for n in range(1, 8)]
    content = b"".join(line(f"n{n}", body, "/v1/chat/completions") for n, body in enumerate(bodies, 1))
    source = sdk.files.create(file=("chats.jsonl", content), purpose="batch")
    assert (source.purpose, source.bytes) == ("batch", len(content))
    batch = sdk.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"by": "the sdk"}
    )
    batch = lasting(sdk, batch)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 7
    output = sdk.files.content(batch.output_file_id)
    answers = [json.loads(each) for each in output.text.splitlines()]
    assert [each["custom_id"] for each in answers] == [f"n{n}" for n in range(1, 8)]
    assert answers[1]["response"]["body"]["choices"][0]["message"]["content"] == "calm calm"
    assert batch.usage is not None
    assert batch.usage.output_tokens == 1 + 2 + 3 + 4 + 5 + 6 + 6


def test_the_sdk_lists_cancels_and_deletes(sdk: openai.OpenAI) -> None:
    sources = [sdk.files.create(file=("s.jsonl", scores(4)), purpose="batch") for _ in range(3)]
    made = [
        sdk.batches.create(input_file_id=each.id, endpoint="/v1/score", completion_window="24h")  # type: ignore[arg-type]
        for each in sources
    ]
    assert [each.id for each in sdk.batches.list(limit=1)][:3] == [each.id for each in reversed(made)]
    for batch in made:
        lasting(sdk, batch)
    with pytest.raises(openai.ConflictError):
        sdk.with_options(max_retries=0).batches.cancel(made[0].id)
    assert {each.id for each in sources} <= {each.id for each in sdk.files.list(purpose="batch")}
    assert sdk.files.delete(sources[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(sources[0].id)


def test_the_sdk_sees_which_lines_were_wrong(sdk: openai.OpenAI) -> None:
    source = sdk.files.create(file=("s.jsonl", scores(1) + b"[]\n"), purpose="batch")
    made = sdk.batches.create(input_file_id=source.id, endpoint="/v1/score", completion_window="24h")  # type: ignore[arg-type]
    batch = lasting(sdk, made)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].line == 2
