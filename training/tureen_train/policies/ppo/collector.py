"""The answers of a step: the policy writes them on all ranks, and the first rank rewards them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen_core.template import Renderer
from tureen_train.config import Sampling
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import EncodedAnswer, encode_prompt
from tureen_train.policies.held_answers import HeldAnswers
from tureen_train.policies.ppo.learner import PpoLearner
from tureen_train.policies.rollouts.contract import Prompt, Reward, Rewarder, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.rounds import Write, reward_answers, write_answers
from tureen_train.policies.round_writers import count_prompts_at_once, make_policy_writer


@dataclass(frozen=True)
class RewardedAnswer:
    """An answer of a step, with its prompt's ids and its rewards."""

    prompt: Prompt
    sample: Sample
    text: EncodedAnswer
    reward: Reward


class Collector:
    """Collects answers with their rewards. Every rank must call it.

    Args:
        learner: holds the policy.
        rewarder: on the first rank; None on the others.
        settings: what decides answers and rewards, see :func:`tureen_train.policies.rollouts.rounds.write_answers`.

    Attributes:
        names: of the rewards.
        compares: whether a reward compares the answers to a prompt.
    """

    def __init__(
        self,
        learner: PpoLearner,
        rewarder: Rewarder | None,
        renderer: Renderer,
        sampling: Sampling,
        settings: Mapping[str, Any],
    ) -> None:
        self._learner, self._rewarder, self._renderer = learner, rewarder, renderer
        self._sampling, self._settings = sampling, settings
        self._crew = Crew()
        self.names = self._crew.share([] if rewarder is None else list(rewarder.names))
        self.compares = self._crew.share(rewarder is not None and rewarder.compares)

    def collect(self, folder: Path, prompts: Sequence[Prompt], seed: int) -> list[RewardedAnswer]:
        """Collect ``sampling.count`` answers to each prompt, or what is missing of them in ``folder``.

        The result is the same on all ranks.

        Raises:
            RewardError: too many answers have no reward.
            RecipeError: the folder has the answers of another recipe.
        """
        write = self._open_writer(self._sampling, seed)
        at_once = count_prompts_at_once(self._sampling)
        with self._learner.whole_policy():
            written = write_answers(folder, prompts, self._settings, write, at_once, self._crew)
        found = reward_answers(folder, prompts, written, self.reward, self._crew)
        return [
            RewardedAnswer(prompt, sample, self._encode(prompt, sample), reward)
            for prompt, own, given in zip(prompts, found.samples, found.rewards, strict=True)
            for sample, reward in zip(own, given, strict=True)
        ]

    def write_held(self, held: HeldAnswers, when: str) -> None:
        """Let the policy, as it is, answer the held-out prompts, or what is missing of that."""
        with self._learner.whole_policy():
            held.write(when, self._open_writer(held.sampling, held.seed))

    def _open_writer(self, sampling: Sampling, seed: int) -> Write:
        return make_policy_writer(self._learner.policy, self._renderer, sampling, seed, self._learner.autocast)

    def reward(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        """Reward answers. Only the first rank may call it."""
        assert self._rewarder is not None
        return self._rewarder.reward(prompts, answers, ignore_progress)

    def _encode(self, prompt: Prompt, sample: Sample) -> EncodedAnswer:
        head = encode_prompt(self._renderer, prompt.messages, prompt.template_arguments)
        return EncodedAnswer((*head, *sample.ids), len(head))
