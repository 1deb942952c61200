"""Settings of ranking: Bradley-Terry's loss over any number of answers, and its optional terms."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import Loss, RecipePart


class FixedCap(RecipePart):
    """The same cap for every pair."""

    prior: Literal["fixed"]
    value: float = Field(default=4.5, gt=0)


class RandomCap(RecipePart):
    """A cap drawn for each pair and step, uniform between ``low`` and ``high``."""

    prior: Literal["random"]
    low: float = Field(default=4.0, gt=0)
    high: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "RandomCap":
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high, {self.high:g}")
        return self


class SimilarityCap(RecipePart):
    """δ = β₁ / (s + β₂) + β₃, where s in [0, 1] is the similarity of the two answers: the less similar, the larger.

    δ is smallest at s = 1. As s falls to 0 it grows without bound, so it is cut at ``ceiling``. The ceiling is far
    above any reward gap: there the constraint has no effect, but the mean of δ stays readable.
    """

    beta1: float = Field(default=6.0, gt=0)
    beta2: float = Field(default=0.001, ge=0)
    beta3: float = 0.0
    ceiling: float = Field(default=50.0, gt=0)

    @model_validator(mode="after")
    def _smallest_is_positive(self) -> "SimilarityCap":
        least = self.beta1 / (1 + self.beta2) + self.beta3
        formula = f"{self.beta1:g} / (1 + {self.beta2:g}) + {self.beta3:g} = {least:.4g}"
        if least <= 0:
            raise ValueError(
                f"beta3: the smallest cap, of two equal answers, is beta1 / (1 + beta2) + beta3 = {formula}, and must "
                "be positive: a negative cap pushes the better answer below the worse one; raise beta1 or beta3"
            )
        if least > self.ceiling:
            raise ValueError(f"ceiling: {self.ceiling:g} is below the smallest cap, {formula}; raise it")
        return self


class LengthCap(SimilarityCap):
    """A cap by the ratio of the answers' lengths in tokens, counted after their shared start."""

    prior: Literal["length_ratio"]


class CosineCap(SimilarityCap):
    """A cap by the angle between the answers' sentence embeddings.

    ``encoder`` is ``minilm`` or the folder of another encoder. ``pooling`` is by default what that folder's
    configuration says, else ``mean``. PCRM uses BERT's ``cls``.
    """

    prior: Literal["cosine"]
    encoder: str = "minilm"
    pooling: Literal["mean", "cls"] | None = None


Constraint = Annotated[FixedCap | RandomCap | LengthCap | CosineCap, Field(discriminator="prior")]


class RankingLoss(Loss):
    """DSP's ranking loss over all comparable pairs, with optional terms.

    With two answers to each prompt ranking is Bradley-Terry's loss. ``lm_coefficient`` weighs DSP's imitation loss on
    the texts scored above ``lm_threshold``. ``constraint`` caps the reward gap of each pair (PCRM, arXiv 2404.00978).
    ``read: span`` compares the two rewards at every token from where the texts diverge to the end of the longer one, as
    DeepSpeed-Chat and PCRM do. Past its end the shorter text keeps its last reward; with ``span_padding: published``
    the reward is read from its padding, as in their code. ``center`` weighs the mean of (r₁ + r₂)² over pairs, which
    keeps rewards around 0 (Eisenstein et al., arXiv 2312.09244).
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
        """Whether the LM head is trained too."""
        return self.lm_coefficient > 0
