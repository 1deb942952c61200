"""The table of the ways to train a policy. A new one is a row here, its settings in ``config``, and its file.

Imports are lazy, so that a run imports the method it uses and no other.
"""

from collections.abc import Mapping

from tureen_train.config import RecipeError
from tureen_train.policies.method import Method, Task, TrainedPolicy


def _dpo(task: Task) -> TrainedPolicy:
    from tureen_train.policies.dpo import train_dpo

    return train_dpo(task)


def _groups(task: Task) -> TrainedPolicy:
    from tureen_train.policies.on_trl import train_groups

    return train_groups(task)


def _ppo(task: Task) -> TrainedPolicy:
    from tureen_train.policies.ppo.method import train_ppo

    return train_ppo(task)


def _sft(task: Task) -> TrainedPolicy:
    from tureen_train.policies.sft import train_sft

    return train_sft(task)


def _rejection(task: Task) -> TrainedPolicy:
    from tureen_train.policies.rejection import train_rejection

    return train_rejection(task)


def _iterative_dpo(task: Task) -> TrainedPolicy:
    from tureen_train.policies.iterative_dpo import train_iterative_dpo

    return train_iterative_dpo(task)


def _ric(task: Task) -> TrainedPolicy:
    from tureen_train.policies.ric.method import train_ric

    return train_ric(task)


METHODS: Mapping[str, Method] = {
    "dpo": _dpo,
    "grpo": _groups,
    "rloo": _groups,
    "ppo": _ppo,
    "sft": _sft,
    "rejection": _rejection,
    "ric": _ric,
    "iterative-dpo": _iterative_dpo,
}


def find_method(name: str) -> Method:
    """Return the method that ``policy.method`` names.

    Raises:
        RecipeError: this version has no such method.
    """
    if name not in METHODS:
        raise RecipeError(f"policy.method: {name} cannot be trained by this version; use {', '.join(METHODS)}")
    return METHODS[name]
