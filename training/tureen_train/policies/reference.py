"""The reference of a policy: the policy as the run starts, from which the KL divergence is measured."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from tureen_core.lora import Adapter
from tureen_train.config import ExpertRun
from tureen_train.networks.policy_model import load_policy_model

TRAINED, START = "default", "start"  # PEFT's names of the adapters

Reference = nn.Module | Callable[[], AbstractContextManager[Any]]


def make_reference(run: ExpertRun, base: Path, policy: Any, start: Adapter | None) -> Reference:
    """Make the reference of a policy that is not yet trained.

    Args:
        policy: see :func:`tureen_train.policies.opening.open_policy`.
        start: the adapter from which its LoRA starts.

    Returns:
        A frozen copy of whole weights; or a function that opens a context in which the policy is the reference: with
        its adapter off, or with a frozen copy of the adapter that it started from.
    """
    if run.model.lora is None:
        copy: nn.Module = load_policy_model(base, run.model, run.scale.zero).requires_grad_(False)
        return copy
    if start is None:
        context: Callable[[], AbstractContextManager[Any]] = policy.disable_adapter
        return context
    policy.add_adapter(START, policy.peft_config[TRAINED])
    for layer in policy.modules():
        if isinstance(layer, LoraLayer):
            _copy_adapter(layer)
    policy.set_adapter(TRAINED)
    return partial(_use_start, policy)


@torch.no_grad()
def _copy_adapter(layer: Any) -> None:
    for factors in (layer.lora_A, layer.lora_B):
        if TRAINED in factors:
            factors[START].weight.copy_(factors[TRAINED].weight)
            factors[START].to(factors[TRAINED].weight.dtype)


@contextmanager
def _use_start(policy: Any) -> Iterator[None]:
    policy.set_adapter(START)
    try:
        yield
    finally:
        policy.set_adapter(TRAINED)
