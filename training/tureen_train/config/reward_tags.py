"""Settings of Rewards-in-Context (RiC, arXiv 2402.10207): policies that read in their prompt which rewards to reach."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tureen_core.steering import Mapped
from tureen_train.config.parts import RecipePart
from tureen_train.config.policies import Policy

Count = Annotated[int, Field(ge=0)]


class Cleaning(RecipePart):
    """What becomes of a policy's own answers before they are rewarded.

    An answer is cut at the first of the texts ``cut_at``. It is left out, and counted, if a text of ``most`` stands in
    it more often than that says.
    """

    cut_at: list[str] = ["\n\nHuman:", "\n\nAssistant:"]
    most: dict[str, Count] = {".....": 0, ":)": 2}

    @model_validator(mode="after")
    def _names_texts(self) -> "Cleaning":
        if not all((*self.cut_at, *self.most)):
            raise ValueError("an empty text stands in every answer; leave it out")
        return self


class OnlineStage(RecipePart):
    """Rounds after the offline stage, in which the policy also learns from answers to rewards that it is asked for.

    A round draws ``prompts`` prompts with replacement, and for each the rewards that are asked for. ``desired:
    published`` draws each from the range, and then sets all but the smallest to its upper end; ``uniform`` leaves them
    as they are drawn. Of the answers are kept with ``keep: quantile`` those that reach the ``quantile`` of any reward,
    with ``pareto`` those of the first ``fronts`` fronts (the first are those that no other dominates), or ``all``.

    The policy is trained on what is kept of all rounds so far, and on at most ``original`` rows of the data that are
    chosen by the same rule. It takes ``steps`` steps at the constant rate ``learning_rate``; null passes over all rows
    as ``optimisation.epochs`` says.
    """

    rounds: int = Field(default=1, ge=1)
    prompts: int = Field(default=20_000, ge=1)
    original: int = Field(default=10_000, ge=0)
    desired: Literal["published", "uniform"] = "published"
    keep: Literal["quantile", "pareto", "all"] = "quantile"
    quantile: float = Field(default=0.7, ge=0, le=1)
    fronts: int = Field(default=1, ge=1)
    steps: int | None = Field(default=4000, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)


class RicPolicy(Policy):
    """Rewards-in-Context (arXiv 2402.10207): fine-tuning on answers whose prompts state their rewards as tags.

    The answers of ``data`` are rewarded once. Their rewards are normalised by mean and deviation, written into the
    prompts, and all answers are imitated. Answers are left out that have, with their prompt, fewer than ``shortest`` or
    more than ``max_length`` tokens. ``rounding: published`` rounds raw rewards to one decimal before anything is
    computed from them, and those that a round obtained; ``none`` rounds only what a tag states.

    ``range`` is what rewards can be asked for, by weights or by themselves: from the lowest to the highest of the
    ``data``, or as ``published`` between the extremes of 100,000 draws of a normal distribution, about ±4.2, which lie
    beyond most data. ``mapping`` makes rewards of weights where a request does not say how. ``tag`` is the text of one
    tag. With ``tokens: special`` each tag's name is one token of its own with a trained embedding; a LoRA has none, so
    this needs ``model.lora: null``.

    ``prepared`` names a folder with the rewards of the data, which runs on the same data can share; by default it is in
    the run's own folder. ``online`` adds rounds of the policy's own answers. With ``offline: false`` the run has these
    rounds only, and ``model.start`` names a policy that has learnt from the data already.
    """

    method: Literal["ric"]
    shortest: int = Field(default=8, ge=0)
    rounding: Literal["published", "none"] = "published"
    range: Literal["data", "published"] = "data"
    mapping: Mapped = "l2"
    tag: str = "<rm{index}_score> {score} "
    tokens: Literal["text", "special"] = "text"
    prepared: str | None = None
    clean: Cleaning = Cleaning()
    offline: bool = True
    online: OnlineStage | None = None

    @model_validator(mode="after")
    def _has_a_stage(self) -> "RicPolicy":
        if not self.offline and self.online is None:
            raise ValueError("offline: false leaves nothing to train without `online`; give one of the two")
        return self

    @model_validator(mode="after")
    def _has_a_name_for_a_token(self) -> "RicPolicy":
        if self.tokens == "special" and not self.tag.partition("{score}")[0].strip():
            raise ValueError("tag: with tokens: special a name stands before {score}, which becomes the token")
        return self

    @property
    def samples(self) -> bool:
        """As above."""
        return True

    @property
    def sums_rewards(self) -> bool:
        """As above."""
        return False

    @property
    def steers_by_prompt(self) -> bool:
        """As above."""
        return True

    def list_new_tokens(self, names: Sequence[str]) -> list[str]:
        """As above. With ``tokens: special``, what stands before the reward in each tag."""
        if self.tokens == "text":
            return []
        heads = self.tag.partition("{score}")[0].strip()
        return [heads.replace("{index}", str(at)).replace("{name}", name) for at, name in enumerate(names, start=1)]
