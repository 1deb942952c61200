"""Both clients against a real server, in one suite."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from client.standin import StandIn, free_url, hang_up, keep_silent, refusal, reply, work

from tureen import (
    ChatReply,
    Chunks,
    Client,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Message,
    NotFound,
    RankingLabel,
    RateLimited,
    Retries,
    ScoreItem,
    ServerFault,
    TrlLabel,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

PAIR = {"prompt": "Why?", "candidates": ["Because.", "No idea at all."]}
Make = Callable[..., Any]


def test_scores_come_back_typed(client: Any) -> None:
    got = client.score([PAIR], rewards=["length"], preferences={"length": 1.0})
    first, second = got.data[0].candidates
    assert first.scores["length"].raw == len("Because.")
    assert second.scores["length"].calibrated == (len("No idea at all.") - 10) / 5
    assert got.fingerprint == {"length": "f-length", "vowels": "f-vowels"}
    assert got.preferences == {"length": 1.0}
    assert got.usage.prompt_tokens == len("Because.No idea at all.")


def test_only_what_was_said_is_sent(client: Any, standin: StandIn) -> None:
    client.score([PAIR], rewards=["length"])
    assert standin.seen[0].json == {"items": [PAIR], "rewards": ["length"]}


def test_items_may_be_wire_types_dicts_or_any_iterable(client: Any, standin: StandIn) -> None:
    typed = ScoreItem(prompt=[Message(role="user", content="Why?")], candidates=["Because."])
    client.score(item for item in (typed, PAIR))
    assert standin.seen[0].json["items"] == [
        {"prompt": [{"role": "user", "content": "Why?"}], "candidates": ["Because."]},
        PAIR,
    ]


def test_big_inputs_go_out_in_parts_and_come_back_as_one(make: Make, standin: StandIn) -> None:
    items = [{"prompt": "p", "candidates": ["x" * size]} for size in range(7)]
    got = make(chunks=Chunks(items=3)).score(items)
    assert [len(seen.json["items"]) for seen in standin.seen] == [3, 3, 1]
    assert [row.index for row in got.data] == list(range(7))
    assert [row.candidates[0].scores["length"].raw for row in got.data] == list(range(7))
    assert got.usage.total_tokens == sum(range(7))


def test_a_bad_item_is_named_and_nothing_is_sent(client: Any, standin: StandIn) -> None:
    with pytest.raises(Unprocessable, match="should be a valid string") as caught:
        client.score([PAIR, {"prompt": "Why?", "candidates": ["Because.", 3]}])
    assert caught.value.param == "items[1].candidates[1]"
    assert standin.seen == []


def test_the_server_names_an_item_by_its_place_in_the_whole_input(make: Make, standin: StandIn) -> None:
    standin.fail(work, refusal(422, "too_long", "items[1] is too long", param="items[1].candidates[0]"))
    with pytest.raises(Unprocessable, match=r"^items\[4\] is too long") as caught:
        make(chunks=Chunks(items=3)).score([PAIR] * 5)
    assert caught.value.param == "items[4].candidates[0]"


@pytest.mark.parametrize("indices", [[], [0], [1, 0], [0, 0]])
def test_an_answer_that_does_not_hold_the_items_in_order_is_the_servers_fault(
    client: Any, standin: StandIn, indices: list[int]
) -> None:
    rows = [{"index": index, "candidates": []} for index in indices]
    standin.fail(reply({"fingerprint": {}, "usage": {}, "data": rows}))
    with pytest.raises(ServerFault, match="the 2 items in order"):
        client.score([PAIR] * 2)


def test_with_on_error_item_a_bad_item_alone_carries_its_error(make: Make) -> None:
    items = [PAIR, {"prompt": "Why?", "candidates": ["\ud800"]}, PAIR, {"prompt": "Why?", "candidates": 3}]
    got = make(chunks=Chunks(items=3)).score(items, on_error="item")
    assert [row.error and row.error.param for row in got.data] == [
        None,
        "items[1].candidates[0]",
        None,
        "items[3].candidates",
    ]
    assert got.data[2].candidates[0].scores["length"].raw == len("Because.")


def test_a_model_that_changes_between_two_parts_is_a_conflict(make: Make, standin: StandIn) -> None:
    old = {"fingerprint": {"length": "old"}, "usage": {}, "data": [{"index": 0, "candidates": []}]}
    standin.fail(reply(old))
    with pytest.raises(Conflict, match="the model changed"):
        make(chunks=Chunks(items=1)).score([PAIR, PAIR])


def test_labels_follow_the_format(client: Any) -> None:
    full = client.preferences([PAIR]).data[0]
    assert (full.chosen, full.rejected, full.ranking) == (1, 0, [1, 0])
    assert full.candidates[1].reward - full.candidates[0].reward == full.margin
    trl = client.preferences([PAIR], format="trl").data[0]
    assert isinstance(trl, TrlLabel)
    assert trl.chosen == [{"role": "assistant", "content": "No idea at all."}]
    ranking = client.preferences([PAIR], format="ranking").data
    assert ranking == [RankingLabel(index=0, ranking=[1, 0])]
    assert isinstance(ranking[0], RankingLabel)


def test_chat_takes_a_text_or_messages(client: Any, standin: StandIn) -> None:
    got = client.chat("Hello", preferences={"academy": 0.5, "business": 0.5}, max_tokens=8)
    assert isinstance(got, ChatReply)
    assert got.text == "0.5academy+0.5business says Hello"
    assert got.choices[0].preferences == {"academy": 0.5, "business": 0.5}
    assert (got.steering, got.experts) == ({"method": "soup"}, {"academy": "v1"})
    assert client.chat([Message(role="user", content="Hi")]).text == "plain says Hi"
    assert standin.seen[1].json == {"messages": [{"role": "user", "content": "Hi"}]}


def test_chat_streams(client: Any, standin: StandIn) -> None:
    chunks = client.read("chat", "Hello", preferences={"academy": 1.0})
    assert "".join(chunk.text for chunk in chunks) == "1academy says Hello"
    assert chunks[-1].usage.completion_tokens == 4
    assert standin.seen[0].json["stream"] is True


def test_completions_whole_and_streamed(client: Any) -> None:
    assert [choice.text for choice in client.complete(["One", "Two"]).choices] == ["plain says One", "plain says Two"]
    assert client.complete("One").text == "plain says One"
    assert "".join(chunk.text for chunk in client.read("complete", "One")) == "plain says One"


def test_a_sweep_is_one_request_with_a_choice_for_each_mixture(client: Any, standin: StandIn) -> None:
    weights = [{"academy": 1.0}, {"academy": 0.5, "business": 0.5}]
    got = client.sweep("Hello", weights, seed=3)
    assert [choice.text for choice in got.choices] == ["1academy says Hello", "0.5academy+0.5business says Hello"]
    assert standin.seen[0].json["preferences"] == weights
    assert len(standin.seen) == 1


def test_models_are_listed_and_unknown_fields_kept(client: Any) -> None:
    reward, policy = client.models().data
    assert (reward.id, reward.kind, reward.max_length) == ("length", "reward", 2048)
    assert policy.model_extra == {"new_field": 1}


def test_every_request_carries_key_agent_and_the_time_it_has(make: Make, standin: StandIn) -> None:
    client = make(api_key="secret", timeout=2.5)
    client.score([PAIR])
    client.score([PAIR], deadline=1.0)
    first, second = (seen.headers for seen in standin.seen)
    assert first["authorization"] == "Bearer secret"
    assert first["user-agent"].startswith("tureen-python/")
    assert first["x-request-timeout-ms"] == "2500"
    assert 0 < int(second["x-request-timeout-ms"]) <= 1000


def test_one_connection_serves_many_calls(client: Any, standin: StandIn) -> None:
    client.score([PAIR])
    client.read("chat", "Hello")
    client.score([PAIR])
    assert len({seen.port for seen in standin.seen}) == 1


def test_a_busy_server_is_asked_again(client: Any, standin: StandIn) -> None:
    standin.fail(refusal(503, "queue_full", retry_after="0.001"), refusal(429, "rate_limited"))
    assert client.score([PAIR]).data[0].index == 0
    assert len(standin.seen) == 3


def test_a_broken_connection_is_tried_again(client: Any, standin: StandIn) -> None:
    standin.fail(hang_up)
    assert client.chat("Hello").text == "plain says Hello"
    assert len(standin.seen) == 2


def test_a_stream_that_cannot_begin_is_tried_again(client: Any, standin: StandIn) -> None:
    standin.fail(refusal(503, "queue_full"))
    assert "".join(chunk.text for chunk in client.read("chat", "Hello")) == "plain says Hello"


def test_when_tries_run_out_the_last_error_is_raised(client: Any, standin: StandIn) -> None:
    standin.fail(*[refusal(503, "draining", "shutting down", retry_after="0.001")] * 3)
    with pytest.raises(Unavailable, match="shutting down") as caught:
        client.score([PAIR])
    assert (caught.value.code, caught.value.retry_after, caught.value.request_id) == ("draining", 0.001, "req-7")
    assert len(standin.seen) == 3


def test_a_wait_that_is_asked_for_but_too_long_is_not_waited_for(client: Any, standin: StandIn) -> None:
    standin.fail(refusal(429, "rate_limited", retry_after="121"))
    with pytest.raises(RateLimited):
        client.score([PAIR])
    assert len(standin.seen) == 1


def test_a_wait_beyond_the_deadline_is_not_begun(client: Any, standin: StandIn) -> None:
    standin.fail(refusal(503, "queue_full", retry_after="60"))
    with pytest.raises(Unavailable):
        client.chat("Hello", deadline=5.0)
    assert len(standin.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (404, NotFound), (409, Conflict), (422, Unprocessable)]
)
def test_the_callers_mistakes_are_raised_at_once_as_the_same_class(
    client: Any, standin: StandIn, status: int, kind: type[Exception]
) -> None:
    standin.fail(refusal(status, "told", "no good", param="preferences.humor"))
    with pytest.raises(kind, match="no good") as caught:
        client.chat("Hello")
    assert (caught.type, caught.value.param) == (kind, "preferences.humor")  # type: ignore[attr-defined]
    assert len(standin.seen) == 1


def test_silence_ends_at_the_timeout(make: Make, standin: StandIn) -> None:
    standin.fail(keep_silent)
    with pytest.raises(ConnectionFailed, match="did not answer in time"):
        make(timeout=0.05, retries=Retries(limit=0)).score([PAIR])


def test_silence_ends_at_the_deadline(make: Make, standin: StandIn) -> None:
    standin.fail(keep_silent)
    with pytest.raises(DeadlineExceeded, match=r"within the 0\.05 s allowed"):
        make().score([PAIR], deadline=0.05)


def test_nobody_there_says_how_to_start_a_server(make: Make) -> None:
    with pytest.raises(ConnectionFailed, match="tureen-serve --starter"):
        make(url=free_url()).models()


def test_ready_says_yes_or_no(make: Make, standin: StandIn) -> None:
    client = make()
    assert client.ready() is True
    standin.fail(refusal(503, "model_loading"))
    assert client.ready() is False
    assert make(url=free_url()).ready() is False


def test_waiting_ends_when_the_server_is_ready(make: Make, standin: StandIn) -> None:
    standin.fail(*[refusal(503, "model_loading", "the models are loading")] * 2)
    make(poll=0.001).wait_until_ready(30)
    assert [seen.path for seen in standin.seen] == ["/health/ready"] * 3


def test_waiting_in_vain_says_why(make: Make, standin: StandIn) -> None:
    standin.fail(refusal(503, "model_loading", "the models are loading"))
    with pytest.raises(DeadlineExceeded, match="the models are loading"):
        make().wait_until_ready(0)


def test_waiting_for_something_else_than_tureen_ends_at_once(make: Make, standin: StandIn) -> None:
    standin.fail(refusal(404, "unknown_route"))
    with pytest.raises(NotFound):
        make().wait_until_ready(60)


@pytest.mark.parametrize(("url", "needed"), [("http://host", False), ("https://host", True)])
def test_certificates_are_checked_wherever_there_are_any(url: str, needed: bool) -> None:
    with Client(url) as client:
        assert client._http_options["verify"] is needed


def test_a_client_may_bring_its_own_transport() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"data": [{"id": str(request.url), "kind": "policy"}]})

    with Client("https://host/tureen", transport=httpx2.MockTransport(answer)) as client:
        assert client.models().data[0].id == "https://host/tureen/v1/models"
