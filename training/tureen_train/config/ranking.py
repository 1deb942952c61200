"""Settings of ranking: Bradley-Terry's loss over any number of answers, and what may stand beside it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import Loss, RecipePart


class FixedCap(RecipePart):
    """One cap for every pair."""

    prior: Literal["fixed"]
    value: float = Field(default=4.5, gt=0)


class RandomCap(RecipePart):
    """A cap for each pair and step, uniform between ``low`` and ``high``."""

    prior: Literal["random"]
    low: float = Field(default=4.0, gt=0)
    high: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "RandomCap":
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high, {self.high:g}")
        return self


class SimilarityCap(RecipePart):
    """δ = β₁ / (s + β₂) + β₃ of two answers' similarity s in [0, 1]: the less similar, the larger.

    δ is smallest where s = 1. It grows without bound as s falls to 0, so it is cut at ``ceiling``, far above the gaps
    that rewards have: there the constraint is off, and a mean of δ stays a number that can be read.
    """

    beta1: float = Field(default=6.0, gt=0)
    beta2: float = Field(default=0.001, ge=0)
    beta3: float = 0.0
    ceiling: float = Field(default=50.0, gt=0)

    @model_validator(mode="after")
    def _smallest_is_positive(self) -> "SimilarityCap":
        least = self.beta1 / (1 + self.beta2) + self.beta3
        told = f"{self.beta1:g} / (1 + {self.beta2:g}) + {self.beta3:g} = {least:.4g}"
        if least <= 0:
            raise ValueError(
                f"beta3: the smallest cap, of two equal answers, is beta1 / (1 + beta2) + beta3 = {told}, and must be "
                "positive: below 0 the better answer is pushed under the worse one; raise beta1 or beta3"
            )
        if least > self.ceiling:
            raise ValueError(f"ceiling: {self.ceiling:g} is below the smallest cap, {told}; raise it")
        return self


class LengthCap(SimilarityCap):
    """By the ratio of the answers' lengths in tokens, counted from where they diverge."""

    prior: Literal["length_ratio"]


class CosineCap(SimilarityCap):
    """By the angle between the answers' sentence embeddings.

    ``encoder`` is ``minilm``, or the folder of another encoder; ``pooling`` is what that folder's own configuration
    says, else ``mean``. PCRM takes BERT's ``cls``.
    """

    prior: Literal["cosine"]
    encoder: str = "minilm"
    pooling: Literal["mean", "cls"] | None = None


Constraint = Annotated[FixedCap | RandomCap | LengthCap | CosineCap, Field(discriminator="prior")]


class RankingLoss(Loss):
    """DSP's two losses, ranking over all comparable pairs and imitation of texts scored above a threshold, and PCRM's.

    With two answers a prompt ranking is Bradley-Terry's loss. ``constraint`` caps the reward gap of each pair (PCRM,
    arXiv 2404.00978). ``read: span`` compares a pair's rewards at every token from where the two diverge to the end of
    the longer, as DeepSpeed-Chat and PCRM do; the shorter's last reward is held, or with ``span_padding: published``
    read from its padding, as it is there. ``center`` weighs the mean of (r₁ + r₂)² over pairs (Eisenstein et al., arXiv
    2312.09244), which keeps rewards around 0.
    """

    method: Literal["ranking"] = "ranking"

    lm_coefficient: float = Field(default=0.0, ge=0)
    lm_threshold: float = Field(default=0.85, ge=0)
    lm_prompt: bool = False
    constraint: Constraint | None = None
    center: float = Field(default=0.0, ge=0)
    read: Literal["last", "span"] = "last"
    span_padding: Literal["hold", "published"] = "hold"

    @property
    def imitates(self) -> bool:
        """Whether some texts' likelihood is trained beside their rewards."""
        return self.lm_coefficient > 0
