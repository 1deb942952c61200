"""Responses as replies or errors, without a network."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from client.script import LOST, refusal, response
from hypothesis import given
from hypothesis import strategies as st

from tureen import (
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    ModelList,
    ServerFault,
    TureenError,
    http_replies,
)
from tureen.errors import BY_STATUS, BadGateway
from tureen.wire import ErrorDetail, ErrorReply

URL = "http://server"


def test_a_success_is_parsed_and_anything_else_raised() -> None:
    assert http_replies.parse_response(
        ModelList, http_replies.require_success(response(200, {"data": []}))
    ) == ModelList(data=[])
    for told in (refusal(404), refusal(307), LOST):
        with pytest.raises(TureenError):
            http_replies.require_success(told)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{", "it is not JSON"),
        ("[]", "should be a valid dictionary"),
        ("{}", "data: is required"),
        ('{"data": [{"id": 3, "kind": "reward"}]}', r"data\[0\]\.id: should be a valid string"),
    ],
)
def test_an_answer_of_another_shape_is_the_servers_fault(body: str, problem: str) -> None:
    with pytest.raises(ServerFault, match=f"the reply is not a valid ModelList: {problem}") as caught:
        http_replies.parse_json(ModelList, body)
    assert caught.value.code == "unreadable_reply"


@pytest.mark.parametrize("kind", BY_STATUS.values())
def test_an_error_crosses_the_wire_as_the_same_class(kind: type[TureenError]) -> None:
    raised = kind("why", param="items[3]", code="word", retry_after=2.5)
    detail = ErrorDetail(message=raised.message, type=raised.type, param=raised.param, code=raised.code)
    document = ErrorReply(error=detail, request_id="r").model_dump()
    got = http_replies.read_fault(response(raised.status, document, retry_after="2.5"))
    assert type(got) is kind
    assert vars(got) == {**vars(raised), "request_id": "r"}


def test_the_request_id_may_stand_in_the_header() -> None:
    assert http_replies.read_fault(refusal(500, x_request_id="abc")).request_id == "abc"


@pytest.mark.parametrize(("status", "kind"), [(408, DeadlineExceeded), (418, InvalidRequest), (502, BadGateway)])
def test_other_servers_statuses_find_the_nearest_class(status: int, kind: type[TureenError]) -> None:
    assert type(http_replies.read_fault(refusal(status))) is kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html>\n <b>Bad  Gateway</b></html>", "<html> <b>Bad Gateway</b></html>"),
        ("", "Bad Gateway"),
        ("x" * 300, "x" * 200),
    ],
)
def test_an_error_that_is_not_ours_is_quoted(text: str, said: str) -> None:
    got = http_replies.read_fault(httpx2.Response(502, text=text, request=httpx2.Request("GET", f"{URL}/v1/models")))
    assert str(got) == f"http://server/v1/models answered 502: {said}"
    assert got.code == BadGateway.code


@pytest.mark.parametrize("kind", BY_STATUS.values())
def test_an_error_within_a_stream_is_known_by_its_code(kind: type[TureenError]) -> None:
    data = json.dumps({"error": {"message": "why", "type": kind.type, "code": kind.code}, "request_id": "r"})
    got = http_replies.read_streamed_fault(data)
    assert type(got) is kind
    assert (got.message, got.request_id) == ("why", "r")


@pytest.mark.parametrize("kind", {error.type: error for error in reversed(BY_STATUS.values())}.values())
def test_an_error_with_a_code_of_its_own_is_known_by_its_type(kind: type[TureenError]) -> None:
    data = json.dumps({"error": {"message": "why", "type": kind.type, "code": "special"}})
    assert type(http_replies.read_streamed_fault(data)) is kind


@pytest.mark.parametrize("data", ["", "{", "{}", '{"choices": []}', '{"error": null}'])
def test_other_events_carry_no_error(data: str) -> None:
    assert http_replies.read_streamed_fault(data) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("refused"), "no server answers at http://server"),
        (httpx2.ReadTimeout("slow"), r"http://server did not answer in time \(ReadTimeout\)"),
        (httpx2.ReadError("reset"), r"the connection to http://server was lost \(ReadError: reset\)"),
    ],
)
def test_a_lost_connection_says_what_happened(error: httpx2.RequestError, message: str) -> None:
    got = http_replies.make_connection_error(error, URL)
    assert type(got) is ConnectionFailed
    assert got.__cause__ is error
    with pytest.raises(ConnectionFailed, match=message):
        raise got


# --------------------------------------------------------------------------- Retry-After


@given(seconds=st.floats(0, 1e6))
def test_retry_after_in_seconds_or_milliseconds(seconds: float) -> None:
    assert http_replies.read_retry_after(response(503, retry_after=repr(seconds))) == seconds
    assert http_replies.read_retry_after(response(503, retry_after_ms=repr(seconds), retry_after="9")) == seconds / 1000


@given(moment=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), seconds=st.integers(-100, 10**6))
def test_retry_after_as_a_date_counts_from_the_answers_date(moment: datetime, seconds: int) -> None:
    now = moment.replace(microsecond=0, tzinfo=UTC)
    then = now + timedelta(seconds=seconds)
    told = response(503, retry_after=format_datetime(then, usegmt=True), date=format_datetime(now, usegmt=True))
    assert http_replies.read_retry_after(told) == max(seconds, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry_after": ""},
        {"retry_after": "soon"},
        {"retry_after": "-1"},
        {"retry_after": "nan"},
        {"retry_after": "inf"},
        {"retry_after": "1e999"},
        {"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"},
        {"retry_after": "Wed, 21 Oct 2026 07:28:00", "date": "Wed, 21 Oct 2026 07:27:00 GMT"},
    ],
)
def test_a_retry_after_that_says_nothing_is_none(headers: dict[str, Any]) -> None:
    assert http_replies.read_retry_after(response(503, **headers)) is None
