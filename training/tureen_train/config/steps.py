"""Settings of process and outcome rewards."""

from typing import Literal

from pydantic import model_validator

from tureen_core.manifest import Input
from tureen_train.config.parts import Loss


class StepsLoss(Loss):
    """How likely each step of an answer is right, read at the step's end (RLHFlow's math reward models).

    The loss is the binary cross-entropy of one logit. ``targets: process`` trains each step that has a label on it;
    ``outcome`` trains the end of the last step on the answer's score, 1 if right and 0 if wrong. With ``model.head:
    tokens`` the head starts as the difference of the LM head's rows of the two ``tokens``.

    ``context`` says what stands before a step. With ``steps`` the earlier steps alone, parted by blank lines. With
    ``marks``, as in RLHFlow's code, each step is a user's turn, and after each earlier one stands the assistant's
    mark, one of ``tokens``: the label's in training, the first one when served.
    """

    method: Literal["steps"]
    targets: Literal["process", "outcome"] = "process"
    tokens: tuple[str, str] = ("+", "-")
    context: Literal["steps", "marks"] = "steps"

    @model_validator(mode="after")
    def _marks_are_of_steps(self) -> "StepsLoss":
        if self.context == "marks" and self.targets == "outcome":
            raise ValueError("context: marks is for targets: process; an outcome has no earlier marks")
        return self

    @property
    def input(self) -> Input:
        """The kind of the model's input."""
        return "steps"
