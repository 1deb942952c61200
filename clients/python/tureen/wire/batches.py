"""The bodies of ``/v1/files`` and ``/v1/batches``, and the lines of batches' files, as in OpenAI's API."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints

from tureen.wire.base import ErrorDetail, Reply, Request, Text

Endpoint = Literal["/v1/score", "/v1/preferences", "/v1/chat/completions", "/v1/completions", "/v1/responses"]
Purpose = Literal["batch", "batch_output"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]

ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
STATUSES: tuple[BatchStatus, ...] = get_args(BatchStatus)
SHORTEST_LIFE, LONGEST_LIFE = 3600, 30 * 86400

WINDOW = r"^[1-9][0-9]{0,3}[hm]$"


def _window(text: str) -> str:
    if not re.fullmatch(WINDOW, text):
        raise ValueError(f"{text!r} is not a time limit; send a number of hours or minutes, as 24h or 90m")
    return text


Window = Annotated[str, AfterValidator(_window), Field(json_schema_extra={"pattern": WINDOW})]
MetadataKey = Annotated[Text, StringConstraints(max_length=64)]
MetadataValue = Annotated[Text, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
CustomId = Annotated[Text, StringConstraints(min_length=1, max_length=256)]


class ExpiresAfter(Request):
    """When the server deletes a file: ``seconds`` after its creation."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)]


class File(Reply):
    """A file on the server. Times are in seconds since the Unix epoch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileDeleted(Reply):
    """The reply to the deletion of a file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileList(Reply):
    """One page of the list of files."""

    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class BatchRequest(Request):
    """The body of ``POST /v1/batches``.

    Attributes:
        input_file_id: the id of the uploaded file.
        endpoint: the route of every line.
        completion_window: the time limit, as ``24h`` or ``90m``.
        metadata: at most 16 short texts by name, returned with the batch.
        output_expires_after: when the output files are deleted.
    """

    input_file_id: Text
    endpoint: Endpoint
    completion_window: Window
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None

    def seconds(self) -> int:
        """Return the time limit in seconds."""
        return int(self.completion_window[:-1]) * (3600 if self.completion_window.endswith("h") else 60)


class BatchError(Reply):
    """An error in the input file. ``line`` is its line, counted from 1."""

    code: str | None = None
    line: int | None = None
    message: str | None = None
    param: str | None = None


class BatchErrors(Reply):
    """The errors that made a batch fail."""

    object: Literal["list"] = "list"
    data: list[BatchError] = []


class RequestCounts(Reply):
    """The numbers of all lines, of lines with a result, and of lines with an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(Reply):
    """Tokens that were read from a cache. The server does not count them, so the number is 0."""

    cached_tokens: int = 0


class OutputTokensDetails(Reply):
    """Tokens of separate reasoning. Tureen's policies have none, so the number is 0."""

    reasoning_tokens: int = 0


class BatchUsage(Reply):
    """The numbers of tokens that a batch has read and generated."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0


class Batch(Reply):
    """A batch: a job that runs the lines of a file. Times are in seconds since the Unix epoch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None


class BatchList(Reply):
    """One page of the list of batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class InputLine(Request):
    """One line of an input file: a request. The ``custom_id`` comes back with its answer."""

    custom_id: CustomId
    method: Literal["POST"]
    url: Text
    body: dict[str, Any]


class LineResponse(Reply):
    """The response to a line: the same that the route sends."""

    status_code: int
    request_id: str
    body: dict[str, Any]


class LineError(Reply):
    """The reason why a line was not run."""

    code: str
    message: str


class OutputLine(Reply):
    """One line of an output or error file: a response, or the reason why there is none.

    with client.files.content(batch.output_file_id) as lines:
        bodies = [OutputLine.model_validate_json(line).response.body for line in lines]
    """

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None

    @property
    def refusal(self) -> ErrorDetail | None:
        """The error in the response; None if there is no response or it is a success."""
        if self.response is None or self.response.status_code == 200:
            return None
        return ErrorDetail.model_validate(self.response.body["error"])
