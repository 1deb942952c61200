"""One step of PPO: the figures of its answers, their advantages, and the passes over them."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tureen_train.config import PpoPolicy
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.actor_critic import Figures
from tureen_train.policies.ppo.collector import RewardedAnswer
from tureen_train.policies.ppo.controllers import KlController, is_to_stop
from tureen_train.policies.ppo.experience import Experience, find_finite, make_experience
from tureen_train.policies.ppo.learner import Learnt, PpoLearner
from tureen_train.policies.ppo.losses import Clips, average_sums
from tureen_train.policies.ppo.plan import Update, plan_passes
from tureen_train.policies.ppo.scores import ScoreScale, settle_score
from tureen_train.policies.rollouts.round_figures import measure_answers
from tureen_train.policies.rollouts.rounds import Answered, Written

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class Prepared:
    """The answers of a step that are learnt from, with the plan of the passes over them.

    Attributes:
        passes: their updates.
        figures: by the policy and its critic before the step, ``[M, T]`` each.
        reference: ``[M, T]``, log-probabilities under the reference.
    """

    answers: Sequence[RewardedAnswer]
    passes: Sequence[Sequence[Update]]
    figures: Figures
    reference: Tensor

    @property
    def texts(self) -> list[EncodedAnswer]:
        """Their texts."""
        return [each.text for each in self.answers]


class Stepper:
    """Runs steps.

    Args:
        seed: of the order of the prompts in the passes.
        batch: the texts that run together on a rank.

    Attributes:
        control: holds the coefficient of the KL divergence.
        scale: puts scores on the scale of all so far.
    """

    def __init__(self, learner: PpoLearner, policy: PpoPolicy, seed: int, batch: int) -> None:
        self.learner, self.policy, self.seed, self.batch = learner, policy, seed, batch
        adaptive = policy.kl_control == "adaptive"
        self.control = KlController(policy.kl, policy.kl_target if adaptive else None, policy.kl_horizon)
        self.scale = ScoreScale(policy.scale_scores, policy.centre_scores, policy.score_clip)
        self.clips = Clips(policy.clip, policy.value_clip, policy.value_weight)

    def run(self, step: int, answers: Sequence[RewardedAnswer]) -> tuple[dict[str, float], Counter[str]]:
        """Learn from the answers of a step. Every rank must call it.

        Returns:
            Figures for the log, and counts of what was left out.

        Raises:
            FloatingPointError: no answer has finite figures, so the policy or its critic is broken.
        """
        rewarded = [each for each in answers if each.reward.total is not None]
        ready = self.prepare(step, rewarded)
        scores = self.scale.scale_scores([self._settle(each) for each in ready.answers])
        lengths = [len(text.answer) for text in ready.texts]
        kl = self.control.value
        experience = make_experience(ready.figures, ready.reference, scores, lengths, self.policy, kl)
        learnt, passes = self._learn(ready, experience)
        self.control.update(experience.kl, len(ready.answers))
        entry = {
            "score": _average(scores),
            "kl": experience.kl,
            "kl_per_token": experience.kl_per_token,
            "kl_coefficient": kl,
            "entropy": experience.entropy,
            "explained_variance": experience.explained,
            **_describe(learnt, self.clips),
            "passes": float(passes),
        }
        left_out = Counter(
            without_reward=len(answers) - len(rewarded),
            not_finite=len(rewarded) - len(ready.answers),
            skipped_batches=sum(each.skipped for each in learnt),
            skipped_updates=sum(not each.changed for each in learnt),
        )
        return entry, left_out

    def _settle(self, answer: RewardedAnswer) -> float:
        assert answer.reward.total is not None  # those without one are left out
        return settle_score(answer.reward.total, answer.sample.finished, self.policy.unfinished_reward)

    def prepare(self, step: int, answers: Sequence[RewardedAnswer]) -> Prepared:
        """Plan the passes and compute the figures, in the micro-batches of the first pass.

        So the first update sees exactly the same log-probabilities again, and all its ratios are 1. An answer with
        figures that are not finite is left out.
        """
        ranks = self.learner.accelerator.num_processes
        while answers:
            numbers: dict[str, int] = {}
            owners = [numbers.setdefault(each.prompt.id, len(numbers)) for each in answers]
            policy, seed = self.policy, f"{self.seed}:{step}"
            passes = plan_passes(owners, policy.epochs, policy.minibatches, self.batch, ranks, seed)
            shares = [shares for update in passes[0] for shares in update.micro_batches]
            texts = [each.text for each in answers]
            figures = self.learner.read(texts, shares, "watched")
            reference = self.learner.read(texts, shares, "reference").logprobs
            finite = find_finite(figures, reference)
            if all(finite):
                return Prepared(answers, passes, figures, reference)
            log.warning("step %d: %d answers have figures that are not finite", step, finite.count(False))
            answers = [each for each, good in zip(answers, finite, strict=True) if good]
        raise FloatingPointError(
            f"step {step}: no answer has finite log-probabilities and values: lower optimisation.learning_rate or "
            "policy.critic_learning_rate, and go on from the last checkpoint with --resume"
        )

    def _learn(self, ready: Prepared, experience: Experience) -> tuple[list[Learnt], int]:
        """Make the passes. Returns what became of each update, and the number of passes."""
        learnt: list[Learnt] = []
        for number, updates in enumerate(ready.passes, 1):
            own = [
                self.learner.learn(ready.texts, update, experience.known, self.clips, self.policy.ratio_limit)
                for update in updates
            ]
            learnt += own
            if is_to_stop(_average_updates(own)["moved"], self.policy.stop_kl):
                return learnt, number
        return learnt, len(ready.passes)


def _describe(learnt: Sequence[Learnt], clips: Clips) -> dict[str, float]:
    """Figures of the updates of a step: means over the tokens of all passes, and the largest norm of a gradient."""
    means = _average_updates(learnt)
    loss = means["policy_loss"] + clips.weight * means["value_loss"]
    return {"loss": loss, **means, "grad_norm": max(each.norm for each in learnt)}


def _average_updates(learnt: Sequence[Learnt]) -> dict[str, float]:
    return average_sums(torch.stack([each.watched for each in learnt]).sum(0))


def _average(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def describe_answers(answers: Sequence[RewardedAnswer]) -> dict[str, float]:
    """Figures of some answers, see :func:`tureen_train.policies.rollouts.round_figures.measure_answers`."""
    prompts = [each.prompt for each in answers]
    written, rewards = ([[Written(each.sample)] for each in answers], [[each.reward] for each in answers])
    return measure_answers(Answered(prompts, written, rewards))
