"""Rounds in which a policy learns from a selection of its own answers: rejection sampling and iterative DPO."""

from collections.abc import Sequence
from pathlib import Path

from tureen_train.config import IterativeDpoPolicy, RejectionPolicy
from tureen_train.policies.kept_answers import describe_kept, make_records
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.draws import make_round_seed
from tureen_train.policies.rollouts.prompts import draw_prompts
from tureen_train.policies.rollouts.round_figures import measure_kept
from tureen_train.policies.rollouts.rounds import Answered
from tureen_train.policies.rollouts.selections import select_answers
from tureen_train.policies.round_tools import RoundTools, collect_round_prompts
from tureen_train.policies.round_writers import Weights
from tureen_train.policies.trained_rounds import TrainedRounds
from tureen_train.policies.training_rounds import Lesson, RoundLoop, Teach


def train_on_own_answers(task: Task, teach: Teach) -> TrainedRounds:
    """Train a policy in rounds, or go on where an earlier, broken run stopped.

    Args:
        teach: how what a round keeps is learnt from.

    Raises:
        RecipeError: there is no prompt to answer, a reward does not fit, nothing of a round is kept, or the folder
            holds rounds of another recipe.
        RewardError: too many answers have no reward.
        StandstillError: training changed nothing in a round.
    """
    tools = RoundTools(task)
    return RoundLoop(tools, OwnAnswers(tools, teach)).run()


class OwnAnswers:
    """The :class:`tureen_train.policies.training_rounds.Course` of a policy's own answers.

    Args:
        teach: how what is kept is learnt from.
    """

    def __init__(self, tools: RoundTools, teach: Teach) -> None:
        task = tools.task
        assert isinstance(task.run.policy, RejectionPolicy | IterativeDpoPolicy)
        self._tools, self._policy, self._teach = tools, task.run.policy, teach
        self.numbers: Sequence[int] = range(1, self._policy.rounds + 1)
        self._prompts = collect_round_prompts(task)
        self.held = tools.open_held()

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        return self._tools.reward(prompts, samples)

    def collect_round(self, number: int, folder: Path, weights: Weights) -> Answered:
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        seed = self._tools.task.run.optimisation.seed
        prompts = draw_prompts(self._prompts, number, self._policy.prompts, seed)
        return self._tools.answer_prompts(folder, prompts, weights, make_round_seed(seed, number))

    def choose_lesson(self, number: int, answered: Answered) -> Lesson:  # noqa: ARG002  (the course's signature)
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        select = self._policy.select
        chosen = select_answers(answered.samples, answered.rewards, select, self._tools.weights)
        kept = len(chosen.choices)
        return Lesson(
            make_records(answered, chosen, self._tools.task.renderer.tokenizer.all_special_ids),
            describe_kept(answered, chosen),
            kept,
            chosen.left_out,
            measure_kept(answered, kept, select.keep == "best_and_worst"),
        )

    def teach_round(self, number: int, task: Task, origin: Weights | None) -> TrainedPolicy:  # noqa: ARG002
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        return self._teach(task, origin)
