"""``/v1/preferences``: which candidate is preferred, by how much and how surely."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat

from tureen.wire.base import MAX_ITEMS, ErrorDetail, Preferences, Reply, Request, Text, Usage, check_finite
from tureen.wire.scores import CandidateScore, ScoreItem


class PreferencesRequest(Request):
    """``POST /v1/preferences``: labels for prompts with two or more candidates each.

    A reward that compares answers compares ``all`` pairs, or lets the winner so far meet the next one (``knockout``).
    """

    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS)]
    rewards: Annotated[list[Text], Field(min_length=1)] | None = None
    preferences: Preferences | None = None
    soup: bool = False
    tie_margin: Annotated[NonNegativeFloat, AfterValidator(check_finite)] = 0.0
    format: Literal["full", "trl", "ranking"] = "full"
    matrix: bool = False
    comparisons: Literal["all", "knockout"] = "all"
    on_error: Literal["fail", "item"] = "fail"
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"


class Label(Reply):
    """Which candidate is preferred, by how much, and how surely.

    ``chosen`` is the first of ``ranking`` and ``rejected`` the last. ``margin`` is the weighted reward of the one
    minus that of the other, ``probability`` Bradley-Terry's of the one over the other, with the artifact's
    temperature. ``matrix[i][j]`` is P(candidate i over j). An item of which a candidate failed has an error only.

    By rewards that compare answers: candidates are ranked by their mean probability of winning and have no scores of
    their own; ``probability`` is the mean over both orders, and ``margin`` its log-odds. After a knockout the last
    that the winner beat is ``rejected``, and those that lost earlier follow in ``ranking``. ``orders`` are P(chosen
    over rejected) with the chosen one shown first and with it shown second; ``order_matrix[i][j]`` is P(candidate i
    over j) with i shown first; ``truncated`` says that a text that was compared was cut.
    """

    index: int
    ranking: list[int] | None = None
    chosen: int | None = None
    rejected: int | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    matrix: list[list[float]] | None = None
    orders: tuple[float, float] | None = None
    order_matrix: list[list[float]] | None = None
    truncated: bool = False
    candidates: list[CandidateScore] = []
    error: ErrorDetail | None = None


class TrlLabel(Reply):
    """A row of TRL's conversational preference format, with its scores."""

    index: int
    prompt: list[dict[str, str]] | None = None
    chosen: list[dict[str, str]] | None = None
    rejected: list[dict[str, str]] | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    error: ErrorDetail | None = None


class RankingLabel(Reply):
    """Only the order, best first."""

    index: int
    ranking: list[int] | None = None
    error: ErrorDetail | None = None


class PreferencesReply(Reply):
    """The answer of ``/v1/preferences``; ``data`` follows the request's ``format``."""

    object: Literal["list"] = "list"
    fingerprint: dict[str, str]
    preferences: dict[str, float] | None = None
    data: list[Label] | list[TrlLabel] | list[RankingLabel]
    usage: Usage
