"""Iterative DPO (arXiv 2312.11456): rounds in which a policy learns from its best against its worst answers.

RLHFlow's Online-RLHF takes the round's start as the reference of a round. With ``policy.reference: base`` the reference
of all rounds is the policy before the first one.
"""

from dataclasses import replace

from tureen_train.config import DpoPolicy, IterativeDpoPolicy, RecipeError
from tureen_train.networks.memory import free_memory
from tureen_train.policies.dpo import make_trainer, train_dpo
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.opening import open_start
from tureen_train.policies.own_answers import train_on_own_answers
from tureen_train.policies.preferences import encode_training_pairs
from tureen_train.policies.round_writers import Weights, name_start
from tureen_train.runs.folder import find_cache


def train_iterative_dpo(task: Task) -> TrainedPolicy:
    """Train in rounds of best against worst.

    Raises:
        RecipeError: see :func:`tureen_train.policies.own_answers.train_on_own_answers`; or the reference is the base
            and ZeRO-3 shards it.
    """
    policy = task.run.policy
    assert isinstance(policy, IterativeDpoPolicy)
    if policy.reference == "base" and policy.rounds > 1 and task.run.scale.zero == 3:
        raise RecipeError("policy.reference: base cannot be read under scale.zero: 3; set it to round, or zero to 2")
    return train_on_own_answers(task, _learn_from_pairs)


def _learn_from_pairs(task: Task, origin: Weights | None) -> TrainedPolicy:
    """Train by DPO on the pairs of a round."""
    rounds = task.run.policy
    assert isinstance(rounds, IterativeDpoPolicy)
    policy = DpoPolicy(
        max_length=rounds.max_length, beta=rounds.beta, sft=rounds.sft, label_smoothing=rounds.label_smoothing
    )
    own = replace(task, run=task.run.model_copy(update={"policy": policy}))
    if origin is None or rounds.reference == "round":
        return train_dpo(own)
    if not task.resume:
        _write_references(own, policy, origin)
    return train_dpo(own, known_reference=True)


def _write_references(task: Task, policy: DpoPolicy, origin: Weights) -> None:
    """Let the policy before the first round read the pairs of a round. Every rank must call it."""
    own = replace(task, run=name_start(task.run, origin), base=origin.base)
    start = open_start(own.run, own.base)
    train = encode_training_pairs(task.data.train, task.renderer, policy, find_cache(task.run))
    trainer = make_trainer(own, policy, start, train, {})
    trainer.write_references()
    del trainer
    free_memory()
