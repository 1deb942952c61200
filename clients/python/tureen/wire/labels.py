"""The bodies of ``/v1/preferences``: which candidate is preferred, with its margin and probability."""

from operator import not_
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat

from tureen.mixes import Normalize
from tureen.wire.base import (
    MAX_ITEMS,
    MAX_NAMES,
    ErrorDetail,
    Many,
    Normalised,
    Preferences,
    Reply,
    Request,
    Text,
    Usage,
    check_finite,
)
from tureen.wire.scores import CandidateScore, ScoreItem


class PreferencesRequest(Request):
    """The body of ``POST /v1/preferences``: label prompts with two or more candidates each.

    Attributes:
        normalize: how ``preferences`` are read; see :class:`tureen.wire.ScoreRequest`.
        tie_margin: a margin up to this value is a tie. A reward without a calibration takes none.
        format: the type of the rows in the reply.
        matrix: whether to return the probabilities of all pairs.
        comparisons: for pairwise models. ``all`` compares all pairs. ``knockout`` compares the winner so far with the
            next candidate only.
    """

    items: Annotated[list[ScoreItem], Many(MAX_ITEMS, least=1)]
    rewards: Annotated[list[Text], Many(MAX_NAMES, least=1)] | None = None
    preferences: Preferences | None = None
    normalize: Normalize = "simplex"
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
    """Which candidate of an item is preferred, with its margin and probability.

        reply = client.preferences([{"prompt": "Why?", "candidates": ["Because.", "No idea."]}])
        reply.data[0].chosen, reply.data[0].margin, reply.data[0].probability

    A pairwise model reads two candidates at once. It gives them no scores, and ranks them by their mean probability of
    winning. After a knockout, ``rejected`` is the last candidate that the winner beat, and those that lost earlier
    follow in ``ranking``. If a candidate failed, the item has only an error.

    Attributes:
        ranking: the candidates' indices, best first.
        chosen: the first of ``ranking``.
        rejected: the last of ``ranking``.
        margin: the weighted reward of ``chosen`` minus that of ``rejected``; of a pairwise model, the log-odds of
            ``probability``.
        probability: Bradley-Terry's probability that ``chosen`` is preferred to ``rejected``, with the artifact's
            temperature; of a pairwise model, the mean over both orders.
        tie: whether the margin is at most ``tie_margin``.
        calibrated: whether ``margin`` and the probabilities have the scale of the artifact's calibration. If false, the
            margin is in the reward's own unit and the temperature is 1. None if the item has an error.
        matrix: ``matrix[i][j]`` is P(candidate i over j).
        orders: of a pairwise model, P(chosen over rejected) with the chosen one shown first, and shown second.
        order_matrix: of a pairwise model, P(candidate i over j) with candidate i shown first.
        truncated: whether a text was cut.
        normalised: what was not read as it was sent; see :class:`tureen.wire.CandidateScore`.
        candidates: the candidates' scores.
    """

    index: int
    ranking: list[int] | None = None
    chosen: int | None = None
    rejected: int | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    calibrated: bool | None = None
    matrix: list[list[float]] | None = None
    orders: tuple[float, float] | None = None
    order_matrix: list[list[float]] | None = None
    truncated: bool = False
    normalised: Normalised = []
    candidates: list[CandidateScore] = []
    error: ErrorDetail | None = None


class TrlLabel(Reply):
    """A row in TRL's conversational preference format, with the candidates' weighted rewards.

    ``tools`` and ``chat_template_kwargs`` are the item's. ``calibrated``, ``truncated`` and ``normalised`` are those of
    :class:`Label`.
    """

    index: int
    prompt: list[dict[str, Any]] | None = None
    chosen: list[dict[str, Any]] | None = None
    rejected: list[dict[str, Any]] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Field(exclude_if=not_)] = None
    chat_template_kwargs: Annotated[dict[str, Any] | None, Field(exclude_if=not_)] = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    calibrated: bool | None = None
    truncated: bool = False
    normalised: Normalised = []
    error: ErrorDetail | None = None


class RankingLabel(Reply):
    """The ranking of an item's candidates: their indices, best first."""

    index: int
    ranking: list[int] | None = None
    truncated: bool = False
    normalised: Normalised = []
    error: ErrorDetail | None = None


class PreferencesReply(Reply):
    """The reply of ``/v1/preferences``. The request's ``format`` decides the type of the rows in ``data``."""

    object: Literal["list"] = "list"
    fingerprint: dict[str, str]
    preferences: dict[str, float] | None = None
    data: list[Label] | list[TrlLabel] | list[RankingLabel]
    usage: Usage
