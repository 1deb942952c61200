"""Scores of answers on a common scale: running statistics, scaling, centring, clipping. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunningMoments:
    """Mean and deviation of all numbers so far, taken in batch by batch (Chan, Golub and LeVeque 1979).

    Attributes:
        count: how many numbers were taken in.
        mean: their mean.
        squares: the sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add_batch(self, numbers: Sequence[float]) -> None:
        """Take in a batch of numbers."""
        if not numbers:
            return
        size = len(numbers)
        mean = math.fsum(numbers) / size
        squares = math.fsum((each - mean) ** 2 for each in numbers)
        total, gap = self.count + size, mean - self.mean
        self.squares += squares + gap**2 * self.count * size / total
        self.mean += gap * size / total
        self.count = total

    @property
    def deviation(self) -> float:
        """Their deviation, with Bessel's correction; 1 where there is none: of fewer than two, or of equal numbers."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 and self.squares > 0 else 1.0


@dataclass
class ScoreScale:
    """Puts the scores of a step on the scale of all scores so far, as TRL's PPO did.

    Attributes:
        scale: whether scores are divided by the running deviation.
        centre: whether the running mean is subtracted first.
        clip: the largest size of a score after that; None does not clip.
        moments: of all scores so far, as they were before this.
    """

    scale: bool = False
    centre: bool = False
    clip: float | None = None
    moments: RunningMoments = field(default_factory=RunningMoments)

    def scale_scores(self, scores: Sequence[float]) -> list[float]:
        """Take in the scores of a step, then scale, centre and clip them."""
        self.moments.add_batch(scores)
        shift = self.moments.mean if self.centre else 0.0
        size = self.moments.deviation if self.scale else 1.0
        limit = math.inf if self.clip is None else self.clip
        return [min(max((each - shift) / size, -limit), limit) for each in scores]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.moments.count, "mean": self.moments.mean, "squares": self.moments.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.moments = RunningMoments(int(state["count"]), float(state["mean"]), float(state["squares"]))


def settle_score(total: float, finished: bool, unfinished_reward: float | None) -> float:
    """The score of an answer: its reward; or ``unfinished_reward``, if there is one and it has no end token."""
    return total if finished or unfinished_reward is None else unfinished_reward
