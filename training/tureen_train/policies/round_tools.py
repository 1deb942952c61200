"""What all rounds of a run share: its processes, its rewards, and the writing of answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from tureen_train.networks.memory import free_memory
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.held_answers import HeldAnswers
from tureen_train.policies.method import Task
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.prompts import PromptSet, check_prompts, collect_prompts
from tureen_train.policies.rollouts.reward_sum import WeightedRewarder
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.rounds import Answered, RewardAll, Write, collect_answers
from tureen_train.policies.round_writers import Weights, count_prompts_at_once, find_origin, open_writer
from tureen_train.runs.folder import ROUNDS, update_account

# the parts of a recipe that decide, beside the prompts, what a policy writes, how that is rewarded, and what is kept
DECIDING = ("model", "policy", "rewards", "sampling", "optimisation")


def keep_writer(write: Write) -> Write:
    """Leave a writer of answers as it is."""
    return write


class RoundTools:
    """The tools of a run in rounds. Every rank must make the same calls.

    Attributes:
        folder: has a folder for each round.
        origin: the weights before the first round.
        settings: what decides the answers and their rewards.
        names: of the rewards.
        weights: the weight of each reward.
        compares: whether a reward compares the answers to a prompt.
    """

    def __init__(self, task: Task) -> None:
        run = task.run
        self.task = task
        self.crew = Crew()
        self.folder = task.folder / ROUNDS
        self.origin = find_origin(task)
        written = run.model_dump(mode="json")
        self.settings = {name: written[name] for name in DECIDING}
        self._rewarder: WeightedRewarder | None = None
        self.weights, self.compares = self.crew.lead(self._open_rewarder)

    def _open_rewarder(self) -> tuple[dict[str, float], bool]:
        run, folder = self.task.run, self.task.folder
        self._rewarder = open_rewarder(
            run.rewards,
            folder,
            failed_share=run.failed_share,
            resume=self.task.resume,
            preferences=run.preferences,
            summed=run.policy.sums_rewards,
        )
        return dict(self._rewarder.weights), self._rewarder.compares

    def open_held(
        self, ask: Callable[[Sequence[Prompt]], Sequence[Prompt]] = list, adapt: Callable[[Write], Write] = keep_writer
    ) -> HeldAnswers:
        """Open the answers to held-out prompts.

        Args:
            ask: makes the prompts that are answered of the held-out ones.
            adapt: makes the writer of a run's answers from that of a policy.
        """
        engine: Literal["process", "vllm"] = "vllm" if self.task.run.sampling.engine == "vllm" else "process"
        return HeldAnswers(self.task, self.folder, self.settings, self.crew, engine, ask, adapt)

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        """Reward answers. Only process 0 may call it."""
        assert self._rewarder is not None
        return self._rewarder.reward(prompts, samples, ignore_progress)

    def answer_prompts(
        self,
        folder: Path,
        prompts: Sequence[Prompt],
        weights: Weights,
        seed: int,
        reward: RewardAll | None = None,
        adapt: Callable[[Write], Write] = keep_writer,
    ) -> Answered:
        """Write and reward the answers of a round, or those that an earlier, broken run left out.

        Args:
            folder: the round's.
            weights: of the policy that answers.
            reward: rewards them; :meth:`reward` by default.
            adapt: see :meth:`open_held`.
        """
        sampling = self.task.run.sampling
        writer = open_writer(self.task.run, weights, self.origin, self.task.renderer, sampling, seed)
        answered = collect_answers(
            folder,
            prompts,
            self.settings,
            adapt(writer.write),
            reward or self.reward,
            count_prompts_at_once(sampling),
            self.crew,
        )
        writer.close()
        free_memory()
        return answered

    def read_round(self, folder: Path, prompts: Sequence[Prompt]) -> Answered:
        """Read a round whose answers are all written and rewarded."""
        return collect_answers(folder, prompts, self.settings, _refuse_more, _refuse_more, 1, self.crew)


def _refuse_more(*_: object) -> NoReturn:
    raise AssertionError("an earlier round has answers that are not written")


def collect_round_prompts(task: Task) -> PromptSet:
    """Collect the prompts of the training data, and tell which are left out.

    Raises:
        RecipeError: none is left, or too many are left out.
    """
    found = collect_prompts(task.data.train, task.renderer, task.run.sampling.max_prompt)
    check_prompts(found, task.run.data.most_dropped)
    update_account(task.folder, texts={"prompts": found.report.counts})
    return found
