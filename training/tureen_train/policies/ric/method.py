"""Rewards-in-Context (RiC, arXiv 2402.10207) as a way to train a policy.

All answers of the data are rewarded, and learnt with their normalised rewards in the prompt (round 0, the offline
stage). In the online rounds the policy is asked for rewards, and its own answers are learnt with those that they
obtained.
"""

from tureen_train.policies.method import Task
from tureen_train.policies.ric.course import RicCourse
from tureen_train.policies.round_tools import RoundTools
from tureen_train.policies.trained_rounds import TrainedRounds
from tureen_train.policies.training_rounds import RoundLoop


def train_ric(task: Task) -> TrainedRounds:
    """Train by Rewards-in-Context, or go on where an earlier, broken run stopped.

    Raises:
        RecipeError: see :func:`tureen_train.policies.ric.preparation.prepare_data`; there is no prompt to answer, or
            nothing of a round is kept.
        RewardError: too many answers have no reward.
        StandstillError: training changed nothing in a round.
    """
    tools = RoundTools(task)
    course = RicCourse(tools)
    return RoundLoop(tools, course, course.choose_probes).run()
