"""Settings of multi-attribute regression: one row of the head for each attribute."""

from typing import Literal

from pydantic import Field, field_validator

from tureen_core.preference import NAME
from tureen_train.config.parts import Loss

ALPHAS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4]


class AttributesLoss(Loss):
    """Regression of each answer's attributes (ArmoRM's first stage, arXiv 2406.12845). Missing labels are ignored.

    Without ``attributes`` all ratings of the training files are learnt.

    ``fit: gradient`` trains head and backbone by the mean squared error over the cells that have a label. ``fit:
    ridge`` freezes the backbone and solves each attribute's ridge regression on its hidden states, without intercept,
    as in the paper. The penalty is the one of ``alphas`` with the lowest squared error on the share ``validation`` of
    the prompts; with it the weights are fitted to all prompts.

    ``standardise`` subtracts the labels' mean in the training data and divides by their deviation, so that attributes
    of any unit have the same weight and a raw reward is a z-score. The metrics ``label_mean`` and ``label_std`` allow
    to convert back. Without it a raw reward is in the label's own unit. A calibrated reward is a z-score in both cases.
    """

    method: Literal["attributes"]
    attributes: list[str] = []
    fit: Literal["gradient", "ridge"] = "gradient"
    standardise: bool = True
    alphas: list[float] = Field(default=ALPHAS, min_length=1)
    validation: float = Field(default=0.2, gt=0, lt=1)

    @field_validator("attributes")
    @classmethod
    def _named(cls, names: list[str]) -> list[str]:
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid name: use 1 to 64 of letters, digits, '_', '.', '-'")
        if len(set(names)) < len(names):
            raise ValueError(f"an attribute is listed twice: {', '.join(names)}")
        return names

    @field_validator("alphas")
    @classmethod
    def _positive(cls, alphas: list[float]) -> list[float]:
        if not all(alpha > 0 for alpha in alphas):
            raise ValueError("a ridge penalty must be positive")
        return alphas

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen."""
        return self.fit == "ridge"

    @property
    def rows(self) -> int:
        """Rows of the score head."""
        return len(self.attributes)
