"""Settings of process and outcome rewards."""

from typing import Literal

from tureen_core.manifest import Input
from tureen_train.config.parts import Loss


class StepsLoss(Loss):
    """How likely each step of an answer is right, read at the step's end (RLHFlow's math reward models).

    The loss is the binary cross-entropy of one logit. ``targets: process`` trains each step that has a label on it;
    ``outcome`` trains the end of the last step on the answer's score, 1 if right and 0 if wrong. With ``model.head:
    tokens`` the head starts as the difference of the LM head's rows of the two ``tokens``.
    """

    method: Literal["steps"]
    targets: Literal["process", "outcome"] = "process"
    tokens: tuple[str, str] = ("+", "-")

    @property
    def input(self) -> Input:
        """The kind of the model's input."""
        return "steps"
