"""The bodies of ``/v1/score/explain``: where in an answer its rewards come from."""

from typing import Annotated, Literal

from pydantic import Field

from tureen.wire.base import MAX_NAMES, Many, Normalised, Prompt, Reply, TemplateRequest, Text, Usage
from tureen.wire.scores import Score

MAX_SEGMENTS = 256
ExplainMethod = Literal["prefixes", "omissions"]
SegmentUnit = Literal["tokens", "words", "sentences"]


class ExplainRequest(TemplateRequest):
    """The body of ``POST /v1/score/explain``.

    Attributes:
        prompt: a text, or messages.
        answer: the assistant's answer.
        rewards: the names of the rewards; by default all loaded ones that score whole answers.
        method: ``prefixes`` scores the answer as far as the end of each segment: a running score. ``omissions`` scores
            it without each segment. By default ``prefixes`` if all rewards are read at the end of a text, else
            ``omissions``.
        by: what a segment is. Tokens are those of the first reward. By default tokens for ``prefixes`` and sentences
            for ``omissions``.
        most: the largest number of segments; where there are more, neighbours are joined.
        truncate, fingerprint, priority: as for ``POST /v1/score``.
    """

    prompt: Prompt
    answer: Annotated[Text, Field(min_length=1)]
    rewards: Annotated[list[Text], Many(MAX_NAMES, least=1)] | None = None
    method: ExplainMethod | None = None
    by: SegmentUnit | None = None
    most: Annotated[int, Field(ge=1, le=MAX_SEGMENTS)] = 64
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"


class Segment(Reply):
    """A piece of the answer: ``answer[start:end]`` in Unicode code points.

    Attributes:
        scores: of the answer up to here, or of the answer without this segment.
        changes: by reward, what the segment adds: its score minus the one before it, or the whole answer's score minus
            the one without it. In deviations; raw for a reward without a calibration.
    """

    start: int
    end: int
    text: str
    scores: dict[str, Score]
    changes: dict[str, float]


class ExplainReply(Reply):
    """The reply of ``/v1/score/explain``.

    Attributes:
        scores: of the whole answer, as ``/v1/score`` gives them.
        empty: of an empty answer, where a running score begins; None for ``omissions``.
        segments: in the order of the answer. They are the whole answer.
        truncated: whether a text was cut. Then segments that are not read change nothing.
    """

    object: Literal["score.explanation"] = "score.explanation"
    method: ExplainMethod
    by: SegmentUnit
    fingerprint: dict[str, str]
    scores: dict[str, Score]
    empty: dict[str, Score] | None = None
    segments: list[Segment]
    truncated: bool = False
    normalised: Normalised = []
    usage: Usage
