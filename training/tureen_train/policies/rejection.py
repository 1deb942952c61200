"""Rejection sampling, RAFT (arXiv 2304.06767): rounds in which a policy imitates its own best answers."""

from dataclasses import replace

from tureen_train.config import RejectionPolicy, SftPolicy
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.own_answers import train_on_own_answers
from tureen_train.policies.sft import train_sft


def train_rejection(task: Task) -> TrainedPolicy:
    """Train in rounds of kept answers.

    Raises:
        RecipeError: see :func:`tureen_train.policies.own_answers.train_on_own_answers`.
    """
    return train_on_own_answers(task, lambda own, _: _imitate(own))


def _imitate(task: Task) -> TrainedPolicy:
    """Train by SFT on the kept answers of a round."""
    rounds = task.run.policy
    assert isinstance(rounds, RejectionPolicy)
    policy = SftPolicy(method="sft", max_length=rounds.max_length, answers="all")
    return train_sft(replace(task, run=task.run.model_copy(update={"policy": policy})))
