"""What is read of a reward model that has several objectives, and the two numbers that an answer gets for it. Pure.

An answer's *reward* is raw, or, where objectives are weighed, the weighted sum of calibrated ones. Its *logit* is the
raw reward over the objective's temperature, or the weighted sum of those.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tureen.records.schema import BadOption
from tureen_core.calibration import Calibration
from tureen_core.preference import format_weights, normalise_weights

Weights = Mapping[str, float]


@dataclass(frozen=True)
class ScoredItem:
    """An item's answers: reward, logit, and whether the text was cut to the model's length."""

    rewards: list[float]
    logits: list[float]
    truncated: list[bool]


@dataclass(frozen=True)
class ObjectiveChoice:
    """What is read of a model: the weights of its objectives (one, of weight 1, where nothing is weighed), and scales.

    Raises:
        BadOption: from :meth:`of`, an objective is not there, or one of several is to be named.
    """

    weights: Weights
    scales: Mapping[str, Calibration]
    weighed: bool

    @classmethod
    def of(
        cls, scales: Mapping[str, Calibration], objective: str | None, preferences: Weights | None, whose: str
    ) -> "ObjectiveChoice":
        """Of these objectives with their scales, those that are asked for."""
        if preferences is not None:
            weights = normalise_weights(preferences, scales, field="--preferences")
            return cls(weights, {name: scales[name] for name in weights}, weighed=True)
        name = objective or (next(iter(scales)) if len(scales) == 1 else None)
        if name is None:
            raise BadOption(f"{whose} has {', '.join(scales)}: name one with --objective, or weigh with --preferences")
        if name not in scales:
            raise BadOption(f"--objective: {whose} has no {name!r}; it has {', '.join(scales) or 'none'}")
        return cls({name: 1.0}, {name: scales[name]}, weighed=False)

    @property
    def name(self) -> str:
        """The objective, or the weights as a caller would write them."""
        return format_weights(self.weights) if self.weighed else next(iter(self.weights))

    def about(self) -> dict[str, Any]:
        """What results tell of it."""
        scales = {name: scale.model_dump() for name, scale in self.scales.items()}
        return {"objective": self.name, "weights": dict(self.weights), "calibration": scales}

    def reward(self, raw: Mapping[str, float]) -> float:
        """The one number that ranks an answer."""
        if not self.weighed:
            return raw[self.name]
        return math.fsum(weight * self.scales[name].standardise(raw[name]) for name, weight in self.weights.items())

    def logit(self, raw: Mapping[str, float]) -> float:
        """What differs between two answers by the log-odds that one is preferred."""
        return math.fsum(weight * raw[name] / self.scales[name].temperature for name, weight in self.weights.items())

    def scored(self, raws: Sequence[Mapping[str, float]], truncated: Sequence[bool]) -> ScoredItem:
        """An item's answers from their raw rewards by objective."""
        return ScoredItem([self.reward(raw) for raw in raws], [self.logit(raw) for raw in raws], list(truncated))


def parse_weights(text: str) -> dict[str, float]:
    """``a=0.7,b=0.3`` as weights.

    Raises:
        BadOption: a part is no name with a number, or a name stands twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise BadOption(f"--preferences: cannot read {part!r}: write name=weight,name=weight") from None
        if name in weights:
            raise BadOption(f"--preferences: {name!r} stands twice")
        weights[name] = weight
    return weights
