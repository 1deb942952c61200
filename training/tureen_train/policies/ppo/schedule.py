"""The learning rate by step."""

import math

import torch
from transformers import get_scheduler

from tureen_train.config import Optimisation


def list_rate_shares(optimisation: Optimisation, steps: int) -> list[float]:
    """List the share of the recipe's learning rate for each step, by transformers' schedules.

    The rate is the same in all updates of a step, so it does not depend on how many there are. The first step already
    has a part of the rate, and the last one still has.

    Args:
        steps: ``policy.steps``.
    """
    rate = optimisation.learning_rate
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    warmup = math.ceil(optimisation.warmup * steps)
    schedule = get_scheduler(optimisation.schedule, optimiser, num_warmup_steps=warmup, num_training_steps=steps + 1)
    shares = []
    for _ in range(steps):
        optimiser.step()
        schedule.step()
        shares.append(schedule.get_last_lr()[0] / rate)
    return shares
