"""Settings of the ways to train a policy."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import RecipePart
from tureen_train.config.ranking import Constraint
from tureen_train.config.rollouts import Selection


class Policy(RecipePart):
    """What all methods have. ``max_length`` is the longest text in tokens, the prompt and the answer together."""

    max_length: int = Field(default=512, ge=16)

    @property
    def samples(self) -> bool:
        """Whether the policy writes answers that are then rewarded."""
        return False

    @property
    def one_round(self) -> bool:
        """Whether all answers are written before the weights change."""
        return False

    @property
    def uses_answers(self) -> bool:
        """Whether the answers of the data are learnt from; else only their prompts are read."""
        return True

    @property
    def sums_rewards(self) -> bool:
        """Whether the reward of an answer is the weighted sum of all; else each counts by itself."""
        return True

    @property
    def steers_by_prompt(self) -> bool:
        """Whether the policy reads in its prompt what is wanted, so that it is no part of a soup."""
        return False

    def list_new_tokens(self, names: Sequence[str]) -> list[str]:  # noqa: ARG002  (the methods' signature)
        """List the texts that shall be one token each, which the base's tokenizer does not have.

        Args:
            names: of the rewards.
        """
        return []


class SftPolicy(Policy):
    """Supervised fine-tuning by TRL: the likelihood of answers, not of prompts.

    ``answers`` chooses which answers of a record are imitated: the ``best``, or ``all`` of them (RiC trains on chosen
    and rejected ones). ``packing`` puts several texts into one row. A text longer than ``max_length`` loses its end;
    with ``too_long: drop`` it is left out and counted.
    """

    method: Literal["sft"]
    answers: Literal["best", "all"] = "best"
    too_long: Literal["cut", "drop"] = "cut"
    packing: bool = False


class DpoPolicy(Policy):
    """Direct preference optimisation (arXiv 2305.18290) on pairs. The reference is the policy at the start.

    ``sft`` weighs a likelihood term on the chosen answer. ``label_smoothing`` ε takes a label as wrong with this
    probability. ``constraint`` caps the difference of the implicit rewards (PCRM, arXiv 2404.00978). ``cosine`` chooses
    PCRM's similarity for a cosine cap: ``raw`` as in its DPO, or ``angle`` as in its reward models.
    """

    method: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    constraint: Constraint | None = None
    cosine: Literal["raw", "angle"] = "raw"


class OnPolicy(Policy):
    """What the methods have that learn from the policy's own answers."""

    @property
    def samples(self) -> bool:
        """As above."""
        return True

    @property
    def uses_answers(self) -> bool:
        """As above."""
        return False


class Rounds(OnPolicy):
    """Rounds of generate → score → select → train. A round draws ``prompts`` prompts; null takes all."""

    rounds: int = Field(default=1, ge=1)
    prompts: int | None = Field(default=None, ge=1)

    @property
    def one_round(self) -> bool:
        """As above."""
        return self.rounds == 1


class RejectionPolicy(Rounds):
    """Rejection sampling (RAFT, arXiv 2304.06767): fine-tuning on the best of several own answers, in rounds."""

    method: Literal["rejection"]
    select: Selection = Selection()

    @model_validator(mode="after")
    def _keeps_answers(self) -> "RejectionPolicy":
        if self.select.keep == "best_and_worst":
            raise ValueError("select.keep: best_and_worst makes pairs, which policy.method: iterative-dpo learns from")
        return self


class IterativeDpoPolicy(Rounds):
    """Iterative DPO (arXiv 2312.11456): in each round the best of several own answers against the worst.

    The reference of a round is the policy at its start; with ``reference: base`` it is the policy before the first.
    """

    method: Literal["iterative-dpo"]
    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    reference: Literal["round", "base"] = "round"
    select: Selection = Selection(keep="best_and_worst")

    @model_validator(mode="after")
    def _keeps_pairs(self) -> "IterativeDpoPolicy":
        if self.select.keep != "best_and_worst":
            raise ValueError("select.keep: DPO learns from pairs; leave the key out")
        return self


class GroupPolicy(OnPolicy):
    """What GRPO and RLOO have: answers to one prompt are compared with each other. Both are TRL's trainers.

    ``kl`` is the coefficient of the KL divergence from the reference. ``iterations`` is the number of updates on each
    batch of answers, and ``clip`` the range of their ratios.
    """

    kl: float = Field(default=0.05, ge=0)
    clip: float = Field(default=0.2, gt=0)
    iterations: int = Field(default=1, ge=1)


class GrpoPolicy(GroupPolicy):
    """GRPO (arXiv 2402.03300)."""

    method: Literal["grpo"]


class RlooPolicy(GroupPolicy):
    """RLOO (arXiv 2402.14740): the baseline of an answer is the mean reward of the others to its prompt."""

    method: Literal["rloo"]


class PpoPolicy(OnPolicy):
    """Proximal policy optimisation (arXiv 1707.06347), as RLHF uses it (arXiv 1909.08593, 2203.02155).

    A step writes ``sampling.count`` answers to each of ``prompts`` prompts, and makes ``epochs`` passes over them in
    ``minibatches`` updates each. ``optimisation.batch`` texts run together on a device. The reward of each token is
    −``kl`` · (log π − log π_ref), and the answer's score is added at its last token. ``kl_control: adaptive`` moves
    ``kl`` toward ``kl_target`` nats for each answer over ``kl_horizon`` answers. No further pass begins when the policy
    has moved by more than 1.5 · ``stop_kl`` nats for each token; null never stops.

    The score of an answer is its reward; with ``unfinished_reward`` an answer without an end token has that one
    instead. ``scale_scores`` divides scores by the running deviation of all so far, ``centre_scores`` subtracts their
    running mean, and ``score_clip`` cuts them after that. ``whiten_advantages`` puts the advantages of a step on mean 0
    and deviation 1; ``whiten_rewards`` the tokens' rewards on deviation 1.

    ``clip`` and ``value_clip`` limit what an update learns from: how far the ratio π / π_old may be from 1, and a value
    from the earlier one. Texts whose mean ratio is above ``ratio_limit`` are skipped and counted.

    ``critic`` is the artifact of a reward model, from which the critic starts; by default the first artifact among the
    rewards that fits, else the policy's base with a new head; ``base`` always takes the latter.
    """

    method: Literal["ppo"]
    steps: int = Field(default=100, ge=1)
    prompts: int = Field(default=16, ge=1)
    epochs: int = Field(default=4, ge=1)
    minibatches: int = Field(default=1, ge=1)
    critic: str | None = None
    critic_learning_rate: float | None = Field(default=None, gt=0)
    kl: float = Field(default=0.2, ge=0)
    kl_control: Literal["fixed", "adaptive"] = "adaptive"
    kl_target: float = Field(default=6.0, gt=0)
    kl_horizon: int = Field(default=10_000, ge=1)
    stop_kl: float | None = Field(default=None, gt=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    trace: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.1, ge=0)
    ratio_limit: float = Field(default=10.0, gt=1)
    unfinished_reward: float | None = None
    scale_scores: bool = False
    centre_scores: bool = False
    score_clip: float | None = Field(default=None, gt=0)
    whiten_advantages: bool = True
    whiten_rewards: bool = False
