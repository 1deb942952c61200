"""The choice of one objective or of weights over several, and the reward and logit that an answer then gets. Pure.

The *reward* of an answer is the raw reward of the objective; with weights it is the weighted sum of calibrated rewards.
The *logit* is the raw reward divided by the objective's temperature; with weights it is the weighted sum of these. An
objective without a calibration counts raw, with the temperature 1, and only alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tureen.mixes import Normalize
from tureen.records.schema import BadOption
from tureen_core.calibration import Calibration, check_common_scale, resolve_scale
from tureen_core.preference import format_weights, normalise_reward_weights

Weights = Mapping[str, float]
Scales = Mapping[str, Calibration | None]

SUBTRACT = "give `--normalize none` to subtract a reward"


@dataclass(frozen=True)
class ScoredItem:
    """The rewards and logits of an item's answers, and whether each text was cut to the model's length."""

    rewards: list[float]
    logits: list[float]
    truncated: list[bool]


@dataclass(frozen=True)
class ObjectiveChoice:
    """One objective of a model, or several with weights.

    Attributes:
        weights: the weights by objective, normalised; a single objective has the weight 1.
        scales: the calibration of each of these objectives, or None.
        weighed: whether weights were given.
        normalize: how given weights were normalised, and how a server must take them.
    """

    weights: Weights
    scales: Scales
    weighed: bool
    normalize: Normalize = "simplex"

    @classmethod
    def of(
        cls,
        scales: Scales,
        objective: str | None,
        preferences: Weights | None,
        whose: str,
        normalize: Normalize = "simplex",
    ) -> "ObjectiveChoice":
        """Choose from a model's objectives.

        Args:
            scales: the calibration of all objectives of the model.
            objective: the name of one of them; not needed if there is only one.
            preferences: weights, instead of one objective.
            whose: the model's name, for error messages.
            normalize: ``none`` uses the weights as given, negative ones too.

        Raises:
            BadOption: there is no such objective, or there are several and none is named.
            Unprocessable: a weight cannot be used, or one of several objectives has no calibration.
        """
        if preferences is not None:
            weights = normalise_reward_weights(preferences, scales, normalize, "--preferences", SUBTRACT)
            check_common_scale(weights, scales, "--preferences")
            return cls(weights, {name: scales[name] for name in weights}, True, normalize)
        name = objective or (next(iter(scales)) if len(scales) == 1 else None)
        if name is None:
            raise BadOption(
                f"--objective: name one of the rewards of {whose}: {', '.join(scales)}; or give --preferences"
            )
        if name not in scales:
            raise BadOption(
                f"--objective: {whose} has no reward {name!r}; its rewards are {', '.join(scales) or 'none'}"
            )
        return cls({name: 1.0}, {name: scales[name]}, weighed=False)

    @property
    def name(self) -> str:
        """The name of the objective, or the weights as ``a=0.7,b=0.3``."""
        return format_weights(self.weights) if self.weighed else next(iter(self.weights))

    def describe(self) -> dict[str, Any]:
        """Return the fields of ``results.json`` that describe the choice."""
        scales = {name: scale.model_dump() if scale else None for name, scale in self.scales.items()}
        return {"objective": self.name, "weights": dict(self.weights), "calibration": scales}

    def write_weighing(self) -> dict[str, Any]:
        """Write the weights as fields of a request; none without weights."""
        as_given = {"normalize": self.normalize} if self.normalize != "simplex" else {}
        return {"preferences": dict(self.weights), **as_given} if self.weighed else {}

    def reward(self, raw: Mapping[str, float]) -> float:
        """Compute an answer's reward, which ranks it, from its raw rewards by objective."""
        if not self.weighed:
            return raw[self.name]
        return math.fsum(weight * self._scale(name).standardise(raw[name]) for name, weight in self.weights.items())

    def logit(self, raw: Mapping[str, float]) -> float:
        """Compute an answer's logit. The difference of two logits is the log-odds that the first is preferred."""
        return math.fsum(weight * raw[name] / self._scale(name).temperature for name, weight in self.weights.items())

    def _scale(self, name: str) -> Calibration:
        return resolve_scale(self.scales[name])

    def score_item(self, raws: Sequence[Mapping[str, float]], truncated: Sequence[bool]) -> ScoredItem:
        """Make the scores of an item from its answers' raw rewards by objective."""
        return ScoredItem([self.reward(raw) for raw in raws], [self.logit(raw) for raw in raws], list(truncated))
