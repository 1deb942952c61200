"""The bodies of ``/v1/preferences/fit``: a person's choices between two answers, and the weights that explain them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tureen.wire.base import (
    Candidate,
    Many,
    Preferences,
    Prompt,
    Reply,
    Request,
    TemplateRequest,
    Text,
    Usage,
)

MAX_CHOICES = 1024
MAX_OBJECTIVES = 16


class ChoicePair(TemplateRequest):
    """One choice between two answers, as their texts or as their rewards.

        ChoicePair(prompt="Why do leaves fall?", chosen="Because days grow short.", rejected="No idea.")
        ChoicePair(chosen_rewards={"helpful": 1.2, "brief": -0.3}, rejected_rewards={"helpful": -0.8, "brief": 0.9})

    Attributes:
        prompt: a text, or messages.
        chosen: the answer that the person chose.
        rejected: the other one.
        chosen_rewards: the rewards of the chosen answer by objective, in deviations.
        rejected_rewards: those of the other one, of the same objectives.
    """

    prompt: Prompt | None = None
    chosen: Candidate | None = None
    rejected: Candidate | None = None
    chosen_rewards: Preferences | None = None
    rejected_rewards: Preferences | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "ChoicePair":
        texts = [self.prompt, self.chosen, self.rejected]
        rewards = [self.chosen_rewards, self.rejected_rewards]
        if all(each is not None for each in texts) and rewards == [None, None]:
            return self
        if all(each is not None for each in rewards) and texts == [None, None, None]:
            return self
        raise ValueError("give `prompt`, `chosen` and `rejected`, or `chosen_rewards` and `rejected_rewards`")

    @property
    def has_rewards(self) -> bool:
        """Whether the pair has rewards, not texts."""
        return self.chosen_rewards is not None


class FitRequest(Request):
    """The body of ``POST /v1/preferences/fit``: find the preference weights that explain a person's choices.

    Attributes:
        pairs: at most 1024, all with texts or all with rewards.
        rewards: for texts, the rewards that score them; by default all loaded ones that score whole answers.
        level: the probability that an interval holds its weight.
        width: the width of the intervals that ``pairs_needed`` is about.
        preset: the name of the preset in the reply.
        truncate, fingerprint, priority: as for ``POST /v1/score``; they are for texts.
    """

    pairs: Annotated[list[ChoicePair], Many(MAX_CHOICES, least=1)]
    rewards: Annotated[list[Text], Many(MAX_OBJECTIVES, least=2)] | None = None
    level: Annotated[float, Field(ge=0.5, le=0.99)] = 0.95
    width: Annotated[float, Field(ge=0.01, le=1)] = 0.2
    preset: Annotated[Text, Field(min_length=1, max_length=64)] = "mine"
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"

    @model_validator(mode="after")
    def _fields_fit(self) -> "FitRequest":
        by_rewards = {pair.has_rewards for pair in self.pairs}
        if len(by_rewards) > 1:
            raise ValueError("pairs: some have texts and some have rewards; send them in separate requests")
        if by_rewards == {True} and (self.rewards is not None or self.fingerprint is not None):
            name = "rewards" if self.rewards is not None else "fingerprint"
            raise ValueError(f"{name}: it is for pairs with texts; leave it out")
        return self


class FitReply(Reply):
    """The weights that explain a person's choices.

    The person is taken to choose the first of two answers with the probability σ(decisiveness · difference of their
    weighted rewards).

    Attributes:
        weights: by objective; they add up to 1.
        intervals: by objective, the interval that holds the weight with the probability ``level``.
        level: as asked for.
        decisiveness: log-odds for one unit of weighted reward.
        decisiveness_interval: its interval.
        log_likelihood: of all choices, in nats; coin flips have ``chance_log_likelihood``.
        chance_log_likelihood: −pairs · ln 2.
        accuracy: the share of pairs whose chosen answer has the larger weighted reward; an equal one counts ½.
        pairs: the number of choices.
        pairs_needed: how many more choices of this kind make every interval at most ``width`` wide; None if more than
            100,000 would not, as where two objectives always reward the same answers.
        width: as asked for.
        preset: to paste into a family's ``presets``; its weights are rounded and add up to 1.
        fingerprint: of the rewards that scored the texts; empty for pairs with rewards.
    """

    object: Literal["preferences.fit"] = "preferences.fit"
    weights: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    level: float
    decisiveness: float
    decisiveness_interval: tuple[float, float]
    log_likelihood: float
    chance_log_likelihood: float
    accuracy: float
    pairs: int
    pairs_needed: int | None
    width: float
    preset: dict[str, dict[str, float]]
    fingerprint: dict[str, str] = {}
    usage: Usage = Usage()
