"""The bodies of ``/v1/score``: rewards of conversations, candidates or steps."""

from typing import Annotated, Any, Literal

from pydantic import field_validator, model_validator

from tureen.mixes import Normalize
from tureen.wire.base import (
    MAX_CANDIDATES,
    MAX_ITEMS,
    MAX_MESSAGES,
    MAX_NAMES,
    Candidate,
    ErrorDetail,
    Many,
    Message,
    Normalised,
    Preferences,
    Prompt,
    Reply,
    Request,
    TemplateRequest,
    Text,
    Usage,
)


class ScoreItem(TemplateRequest):
    """One item to score: a finished conversation, a prompt with candidates, or a prompt with the steps of an answer.

    ScoreItem(prompt="Why do leaves fall?", candidates=["Because days grow short.", "No idea."])
    """

    messages: Annotated[list[Message], Many(MAX_MESSAGES, least=1)] | None = None
    prompt: Prompt | None = None
    candidates: Annotated[list[Candidate], Many(MAX_CANDIDATES, least=1)] | None = None
    steps: Annotated[list[Text], Many(MAX_CANDIDATES, least=1)] | None = None

    @field_validator("candidates", mode="before")
    @classmethod
    def _refuse_steps(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(each, dict) and "steps" in each for each in value):
            raise ValueError(
                "a candidate has no steps: give the steps of one answer as `items[].steps`, beside `prompt`"
            )
        return value

    @model_validator(mode="after")
    def _one_form(self) -> "ScoreItem":
        if self.messages is not None:
            if self.prompt is not None or self.candidates is not None or self.steps is not None:
                raise ValueError("`messages` cannot be combined with prompt, candidates or steps: leave them out")
        elif self.prompt is None or (self.candidates is None) == (self.steps is None):
            raise ValueError("give `messages`, or `prompt` with `candidates`, or `prompt` with `steps`")
        return self


class ScoreRequest(Request):
    """The body of ``POST /v1/score``.

    Attributes:
        items: at most 4096.
        rewards: the names of the rewards to compute, beside those in ``preferences``; by default all loaded ones.
        preferences: the weights of the weighted reward, by objective.
        normalize: ``simplex`` divides the weights by their sum; ``none`` uses them as given, negative ones too.
        soup: soup the reward models' adapters by ``preferences``, and compute the reward of this one model.
        on_error: whether an invalid item fails the request, or only this item.
        truncate: whether texts that are too long are cut.
        fingerprint: refuse the request unless this fingerprint is loaded.
        priority: the order in which the server runs requests.
    """

    items: Annotated[list[ScoreItem], Many(MAX_ITEMS, least=1)]
    rewards: Annotated[list[Text], Many(MAX_NAMES, least=1)] | None = None
    preferences: Preferences | None = None
    normalize: Normalize = "simplex"
    soup: bool = False
    on_error: Literal["fail", "item"] = "fail"
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"


class Score(Reply):
    """One objective's reward.

    Attributes:
        raw: the output of the score head; of a step, the log-odds that it is right.
        calibrated: (raw − mean) / deviation, by the artifact's calibration; of a step, the probability that it is
            right. None if the artifact has no calibration.
    """

    raw: float
    calibrated: float | None = None

    @property
    def scaled(self) -> float:
        """The calibrated reward; the raw one if there is no calibration."""
        return self.raw if self.calibrated is None else self.calibrated


class CandidateScore(Reply):
    """The scores of one candidate, by objective. It has either ``scores`` or ``error``.

    Attributes:
        reward: the weighted sum of the calibrated rewards. One reward without a calibration counts raw.
        tokens: the length of the text in tokens.
        cached_tokens: how many of them were not computed again.
        truncated: whether the text was cut.
        normalised: what was not read as it was sent: ``end_marks`` that were removed, ``control_marks`` that were read
            as plain text, and fields that the chat template does not read, such as ``reasoning_content``.
    """

    index: int
    scores: dict[str, Score] | None = None
    reward: float | None = None
    tokens: int = 0
    cached_tokens: int = 0
    truncated: bool = False
    normalised: Normalised = []
    error: ErrorDetail | None = None


class StepSummary(Reply):
    """The step probabilities of an answer, aggregated in four ways into a score of the whole answer.

    Attributes:
        calibrated: whether the probabilities have the artifact's temperature. Without a calibration it is 1.
    """

    min: float
    product: float
    last: float
    mean: float
    calibrated: bool = True


class ItemScore(Reply):
    """The scores of one item's candidates or steps, in the order of the request.

    Attributes:
        index: the number of the item in the request.
        summary: for an item with steps, each reward's aggregates.
        normalised: what was not read as it was sent in any of them; see :class:`CandidateScore`.
    """

    index: int
    candidates: list[CandidateScore]
    summary: dict[str, StepSummary] | None = None
    normalised: Normalised = []
    error: ErrorDetail | None = None


class ScoreReply(Reply):
    """The reply of ``/v1/score``: a row for each item, in the order of the request."""

    object: Literal["list"] = "list"
    fingerprint: dict[str, str]
    preferences: dict[str, float] | None = None
    data: list[ItemScore]
    usage: Usage
