"""What the KL divergence decides: its coefficient in the rewards from step to step, and the end of a step. Pure.

A controller of the coefficient is either fixed or adaptive; the adaptive one is that of arXiv 1909.08593, section 2.2.
"""

from dataclasses import dataclass
from typing import Any

LARGEST_ERROR = 0.2
STOP_SHARE = 1.5


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


def is_to_stop(moved: float, stop_kl: float | None) -> bool:
    """Tell whether no further pass may begin: the policy moved by more than 1.5 times ``stop_kl``, as in TRL.

    Args:
        moved: log π_old − log π, averaged over the tokens of the last pass, in nats.
        stop_kl: None never stops.
    """
    return stop_kl is not None and moved > STOP_SHARE * stop_kl
