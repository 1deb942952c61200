"""Settings of on-policy training: how answers are written, what rewards them, and which are kept."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tureen_core.preference import NAME
from tureen_train.config.parts import RecipeError, RecipePart

DEVIATIONS = "deviations"  # the unit of calibrated rewards
SHARES = "shares of wins"  # the unit of rewards that compare answers


class Sampling(RecipePart):
    """How a policy writes answers.

    ``count`` answers are written to each prompt, of ``min_tokens`` to ``max_tokens`` tokens, the end token among them.
    ``batch`` is the number of answers that are written together. ``top_k: 0`` and ``top_p: 1`` cut nothing off, and
    ``temperature: 0`` takes the likeliest token. ``max_prompt`` is the longest prompt in tokens; longer ones are left
    out and counted.

    ``engine`` is ``process`` (transformers in this process), ``vllm`` (vLLM in this process, on a GPU), or ``server``:
    an OpenAI-compatible server at ``url`` that serves the policy as ``model``; of a Tureen family with the weights
    ``preferences``. The server's key is that in ``TUREEN_API_KEY``. The weights of a server do not change, so it can
    only write the answers of one round.
    """

    count: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=128, ge=1)
    min_tokens: int = Field(default=1, ge=0)
    max_prompt: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    batch: int = Field(default=32, ge=1)
    engine: Literal["process", "vllm", "server"] = "process"
    url: str | None = None
    model: str | None = None
    preferences: dict[str, float] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Sampling":
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: {self.min_tokens} is above max_tokens, {self.max_tokens}")
        if (self.engine == "server") != (self.url is not None):
            raise ValueError("url: it is needed with engine: server, and only there")
        if self.engine != "server" and (self.model or self.preferences):
            name = "model" if self.model else "preferences"
            raise ValueError(f"{name}: it is for engine: server; leave the key out")
        if self.engine == "server" and (self.top_k or self.min_tokens > 1):
            name = "top_k" if self.top_k else "min_tokens"
            raise ValueError(f"{name}: OpenAI's requests have no such field; leave the key out with engine: server")
        if self.engine == "server" and self.temperature > 2:
            raise ValueError("temperature: a server takes at most 2")
        if self.temperature == 0 and self.count > 1:
            raise ValueError("temperature: at 0 all answers to a prompt are the same; raise it, or set count: 1")
        return self


class RewardPart(RecipePart):
    """What all sources of rewards have.

    The reward of an answer is the weighted sum over the sources. ``scale`` says of what: ``calibrated`` rewards, which
    the source's own mean and deviation put on one scale, or ``raw`` ones. Rewards of different scales are not summed.
    With ``weight: 0`` a reward is only told in logs and files. ``name`` is its name there; by default it is the
    objective's.

    With ``preferences: each`` (P-MORL) each preference sentence of a prompt is read alone, with the others taken out,
    and the reward is their mean.
    """

    name: str = ""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    scale: Literal["calibrated", "raw"] = "calibrated"
    preferences: Literal["all", "each"] = "all"

    @model_validator(mode="after")
    def _named(self) -> "RewardPart":
        self.name = self.name or self.default_name
        if self.name and not NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r}: use 1 to 64 of letters, digits, '_', '.', '-'")
        return self

    @property
    def default_name(self) -> str:
        """The name of a reward that the recipe gives none; empty if only the artifact tells it."""
        return ""

    @property
    def unit(self) -> str | None:
        """What the reward is measured in. Rewards of one unit can be summed; None is a unit of its own."""
        return DEVIATIONS if self.scale == "calibrated" else None


class ArtifactSource(RewardPart):
    """A reward model's artifact, read in this process in float32.

    A pairwise model compares the answers to a prompt. Its rewards are the mean probabilities of winning, of which
    ``scale: calibrated`` applies the temperature. They have another scale than other models' rewards.
    """

    source: Literal["artifact"]
    path: str
    objective: str | None = None

    @property
    def default_name(self) -> str:
        """As above."""
        return self.objective or ""


class ServerSource(RewardPart):
    """A reward of a running Tureen server. A reward that fails there is never taken as 0."""

    source: Literal["server"]
    url: str
    reward: str
    timeout: float = Field(default=300.0, gt=0)

    @property
    def default_name(self) -> str:
        """As above."""
        return self.reward


class JudgeSource(RewardPart):
    """A language model behind an OpenAI-compatible server, which compares answers by ``criterion``.

    The reward of an answer is its share of wins against the other answers to its prompt; a tie counts one half.
    ``criterion`` is the name of a packaged criterion, or a sentence. With ``orders: both`` each pair is judged in both
    orders; with ``once`` the order is drawn by a hash of the texts. ``concurrency`` requests run at a time.
    ``temperature: null`` and ``max_tokens: null`` leave these fields out of the requests. The server's key is that in
    ``TUREEN_API_KEY``.
    """

    source: Literal["judge"]
    url: str
    model: str
    criterion: str
    scale: Literal["raw"] = "raw"
    preferences: Literal["all"] = "all"
    orders: Literal["both", "once"] = "both"
    temperature: float | None = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=512, ge=16)
    concurrency: int = Field(default=8, ge=1)
    timeout: float = Field(default=300.0, gt=0)

    @property
    def default_name(self) -> str:
        """As above."""
        return self.criterion

    @property
    def unit(self) -> str | None:
        """As above."""
        return SHARES

    @model_validator(mode="before")
    @classmethod
    def _has_a_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and " " in str(value.get("criterion", "")).strip() and not value.get("name"):
            raise ValueError("name: give the reward a name, since its criterion is a sentence")
        return value


class FunctionSource(RewardPart):
    """A Python function, named as ``module:function``.

    It is called with ``prompts`` (lists of messages) and ``answers`` (texts) of equal length, and returns a number for
    each; None for one that it cannot reward. With ``scale: calibrated`` the recipe promises that these numbers are on
    the scale of calibrated rewards.
    """

    source: Literal["function"]
    function: str
    scale: Literal["calibrated", "raw"] = "raw"

    @property
    def default_name(self) -> str:
        """As above."""
        return self.function.partition(":")[2]

    @model_validator(mode="after")
    def _is_a_path(self) -> "FunctionSource":
        module, colon, name = self.function.partition(":")
        if not (module and colon and name):
            raise ValueError("function: write it as module:function")
        return self


def check_common_units(units: Mapping[str, str | None]) -> None:
    """Check that rewards can be summed: several need one unit, as calibrated ones have.

    Args:
        units: what each reward is measured in, of the rewards with a weight.

    Raises:
        RecipeError: there are several, and they have no unit in common.
    """
    if len(units) < 2 or (None not in units.values() and len(set(units.values())) == 1):
        return
    bare = next(name for name, unit in units.items() if unit != DEVIATIONS)
    why = "is not calibrated" if units[bare] is None else f"is measured in {units[bare]}"
    others = ", ".join(name for name in units if name != bare)
    raise RecipeError(
        f"rewards: {bare} {why}, so it has no common scale with {others}; set scale: calibrated where a source has it,"
        " or weight: 0, which only logs a reward"
    )


RewardSource = Annotated[ArtifactSource | ServerSource | JudgeSource | FunctionSource, Field(discriminator="source")]


class Selection(RecipePart):
    """Which answers of a round are kept.

    ``best`` keeps the best answer to each prompt, ``best_and_worst`` the best against the worst as a pair, ``share``
    the best ``share`` of all answers, ``threshold`` those with a reward of ``threshold`` or more, ``quantile`` those
    that reach the ``quantile`` of any single reward (RiC, arXiv 2402.10207), ``pareto`` those that no other answer to
    the same prompt dominates in all rewards, and ``all`` keeps all.

    ``min_gap`` is the smallest difference of rewards in a pair; equal ones never make a pair. Answers without a reward
    and empty ones are never kept, and with ``drop_truncated`` those are not either that ended at
    ``sampling.max_tokens``.
    """

    keep: Literal["best", "best_and_worst", "share", "threshold", "quantile", "pareto", "all"] = "best"
    share: float = Field(default=0.25, gt=0, le=1)
    threshold: float = 0.0
    quantile: float = Field(default=0.7, ge=0, le=1)
    min_gap: float = Field(default=0.0, ge=0)
    drop_truncated: bool = False
