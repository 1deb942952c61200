"""Scores, preference labels and souped text from a Tureen server.

from tureen import Client

with Client() as client:
    reply = client.score([{"prompt": "Why do leaves fall?", "candidates": ["Autumn.", "No idea."]}])
"""

from tureen.async_client import AsyncClient
from tureen.batches.content import AsyncContent, Content
from tureen.calls.chunks import Chunks
from tureen.calls.streams import AsyncStream, Stream
from tureen.client import Client
from tureen.errors import (
    BadGateway,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    HeadersTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ServerFault,
    TureenError,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply
from tureen.retry import Retries
from tureen.wire import (
    Batch,
    CandidateOptions,
    File,
    InputLine,
    Label,
    Message,
    ModelCard,
    ModelList,
    OutputLine,
    PreferencesReply,
    RankingLabel,
    ScoreItem,
    ScoreReply,
    SoupOptions,
    TrlLabel,
)

__all__ = [
    "AsyncClient",
    "AsyncContent",
    "AsyncStream",
    "BadGateway",
    "Batch",
    "CandidateOptions",
    "ChatChunk",
    "ChatReply",
    "Chunks",
    "Client",
    "CompletionReply",
    "Conflict",
    "ConnectionFailed",
    "Content",
    "DeadlineExceeded",
    "File",
    "Forbidden",
    "HeadersTooLarge",
    "InputLine",
    "InvalidRequest",
    "Label",
    "Message",
    "MethodNotAllowed",
    "ModelCard",
    "ModelList",
    "NotFound",
    "OutputLine",
    "PayloadTooLarge",
    "PreferencesReply",
    "RankingLabel",
    "RateLimited",
    "Retries",
    "ScoreItem",
    "ScoreReply",
    "ServerFault",
    "SoupOptions",
    "Stream",
    "TrlLabel",
    "TureenError",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMedia",
]
