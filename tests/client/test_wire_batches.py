"""Files and batches on the wire: OpenAI's objects, as its own SDK reads them."""

from typing import Any

import pytest
from openai.types import Batch as TheirBatch
from openai.types import FileObject
from pydantic import ValidationError

from tureen.wire import ENDPOINTS, STATUSES, Batch, BatchError, BatchErrors, BatchRequest, BatchUsage, File, OutputLine

REQUEST = {"input_file_id": "file-1", "endpoint": "/v1/score", "completion_window": "24h"}


def refusal(**changes: Any) -> tuple[int | str, ...]:
    with pytest.raises(ValidationError) as caught:
        BatchRequest.model_validate(REQUEST | changes)
    return caught.value.errors()[0]["loc"]


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86400), ("90m", 5400), ("1m", 60), ("9999h", 9999 * 3600)])
def test_a_window_is_hours_or_minutes(window: str, seconds: int) -> None:
    assert BatchRequest.model_validate(REQUEST | {"completion_window": window}).seconds() == seconds


@pytest.mark.parametrize("window", ["", "24", "h", "0h", "-1h", "1d", "1.5h", "24h ", "24H", "99999h", "٣h"])
def test_and_nothing_else(window: str) -> None:
    assert refusal(completion_window=window) == ("completion_window",)


def test_metadata_is_bounded_as_openai_bounds_it() -> None:
    most = {f"{number:064}": "v" * 512 for number in range(16)}
    assert BatchRequest.model_validate(REQUEST | {"metadata": most}).metadata == most
    assert refusal(metadata=most | {"one more": ""})[0] == "metadata"
    assert refusal(metadata={"k" * 65: ""})[0] == "metadata"
    assert refusal(metadata={"k": "v" * 513})[0] == "metadata"
    assert refusal(metadata={"k": 1})[0] == "metadata"


def test_outputs_are_kept_from_an_hour_to_thirty_days() -> None:
    for seconds in (3600, 30 * 86400):
        told = {"anchor": "created_at", "seconds": seconds}
        assert BatchRequest.model_validate(REQUEST | {"output_expires_after": told}).output_expires_after is not None
    for seconds in (3599, 30 * 86400 + 1):
        told = {"anchor": "created_at", "seconds": seconds}
        assert refusal(output_expires_after=told) == ("output_expires_after", "seconds")


def test_unknown_endpoints_and_fields_are_refused() -> None:
    assert refusal(endpoint="/v1/embeddings") == ("endpoint",)
    assert refusal(model="x") == ("model",)
    assert len(ENDPOINTS) == 5


def test_openais_sdk_reads_a_file() -> None:
    ours = File(id="file-1", bytes=7, created_at=1, filename="in.jsonl", purpose="batch")
    theirs = FileObject.model_validate(ours.model_dump(), strict=True)
    assert theirs.model_extra == {}
    assert theirs.id == "file-1"


def test_openais_sdk_reads_a_batch_in_every_state() -> None:
    for status in STATUSES:
        ours = Batch(
            id="batch_1",
            endpoint="/v1/score",
            input_file_id="file-1",
            completion_window="24h",
            status=status,
            created_at=1,
            errors=BatchErrors(data=[BatchError(line=3, code="invalid_json", message="no")]),
            usage=BatchUsage(input_tokens=3, total_tokens=3),
            metadata={"k": "v"},
        )
        theirs = TheirBatch.model_validate(ours.model_dump(), strict=True)
        assert (theirs.status, theirs.model_extra) == (status, {})
        assert theirs.errors is not None
        assert theirs.errors.data is not None
        assert theirs.errors.data[0].line == 3


def test_every_field_of_openais_is_there() -> None:
    assert set(TheirBatch.model_fields) == set(Batch.model_fields)
    assert set(FileObject.model_fields) == set(File.model_fields)


def test_a_line_has_an_answer_a_refusal_or_a_reason() -> None:
    def line(status: int, body: Any) -> OutputLine:
        response = {"status_code": status, "request_id": "req_1", "body": body}
        return OutputLine.model_validate({"id": "batch_req_1", "custom_id": "a", "response": response, "error": None})

    assert line(200, {"data": []}).refusal is None
    told = line(422, {"error": {"message": "no", "type": "invalid_request_error", "param": "items"}}).refusal
    assert told is not None
    assert (told.message, told.param) == ("no", "items")
    unrun = {"id": "x", "custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "late"}}
    late = OutputLine.model_validate(unrun)
    assert late.refusal is None
    assert late.error is not None
    assert late.error.code == "batch_expired"
