"""The coefficient of the KL divergence in the rewards, from step to step. Pure.

A controller is either fixed or adaptive; the adaptive one is that of arXiv 1909.08593, section 2.2.
"""

from dataclasses import dataclass
from typing import Any

LARGEST_ERROR = 0.2


def adapt_coefficient(value: float, measured: float, target: float, answers: int, horizon: int) -> float:
    """Move a KL coefficient toward what keeps the KL divergence at its target.

    k ← k · (1 + e · n / horizon), with the error e = clip(KL / target − 1, −0.2, 0.2).

    Args:
        value: k.
        measured: the KL divergence of the step, in nats for each answer.
        target: the divergence to keep, in nats for each answer.
        answers: n, the answers of the step on all ranks.
        horizon: the answers over which k follows.
    """
    error = min(max(measured / target - 1, -LARGEST_ERROR), LARGEST_ERROR)
    return value * (1 + error * answers / horizon)


@dataclass
class KlController:
    """Holds the coefficient.

    Attributes:
        value: the coefficient of the next step.
        target: the KL divergence to keep, in nats for each answer; None keeps the coefficient.
        horizon: the answers over which the coefficient follows.
    """

    value: float
    target: float | None = None
    horizon: int = 10_000

    def update(self, measured: float, answers: int) -> None:
        """Take in the KL divergence of a step. One that is not finite changes nothing.

        Args:
            measured: in nats for each answer.
            answers: the answers of the step on all ranks.
        """
        if self.target is not None and abs(measured) < float("inf"):
            self.value = adapt_coefficient(self.value, measured, self.target, answers, self.horizon)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.value = float(state["value"])
