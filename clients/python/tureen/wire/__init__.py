"""The wire: every body that crosses it, as pydantic types. Server and client share this package.

Native requests refuse unknown fields. Replies allow them, so that an older client reads a newer server.
"""

from tureen.wire.base import (
    MAX_CANDIDATES,
    MAX_ITEMS,
    TIMEOUT_HEADER,
    Candidate,
    ErrorDetail,
    ErrorReply,
    Message,
    Preferences,
    Prompt,
    Reply,
    Request,
    Role,
    Text,
    TextPart,
    Usage,
    Weight,
    finite,
)
from tureen.wire.generation import (
    CandidateOptions,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    ResponseFormat,
    SoupOptions,
    StreamOptions,
)
from tureen.wire.labels import Label, PreferencesReply, PreferencesRequest, RankingLabel, TrlLabel
from tureen.wire.models import ModelCard, ModelList
from tureen.wire.scores import CandidateScore, ItemScore, Score, ScoreItem, ScoreReply, ScoreRequest

__all__ = [
    "Candidate",
    "CandidateOptions",
    "CandidateScore",
    "ChatRequest",
    "CompletionRequest",
    "ErrorDetail",
    "ErrorReply",
    "GenerationRequest",
    "ItemScore",
    "Label",
    "MAX_CANDIDATES",
    "MAX_ITEMS",
    "Message",
    "ModelCard",
    "ModelList",
    "Preferences",
    "PreferencesReply",
    "PreferencesRequest",
    "Prompt",
    "RankingLabel",
    "Reply",
    "Request",
    "ResponseFormat",
    "Role",
    "Score",
    "ScoreItem",
    "ScoreReply",
    "ScoreRequest",
    "SoupOptions",
    "StreamOptions",
    "TIMEOUT_HEADER",
    "Text",
    "TextPart",
    "TrlLabel",
    "Usage",
    "Weight",
    "finite",
]
