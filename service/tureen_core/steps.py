"""Process rewards: one number for an answer from the probabilities of its steps. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Aggregate = Literal["min", "product", "last", "mean"]


def aggregate_steps(probabilities: Sequence[float], how: Aggregate) -> float:
    """Aggregate the probabilities that an answer's steps are right.

    Args:
        probabilities: one for each step, 0 to 1.
        how: ``min`` and ``product`` are those of Let's Verify Step by Step (arXiv 2305.20050); ``last`` is an outcome
            reward; ``mean`` is how RLHFlow ranks answers.

    Raises:
        ValueError: there is no step.
    """
    if not probabilities:
        raise ValueError("an answer without steps has no process reward")
    return AGGREGATES[how](probabilities)


def _mean(probabilities: Sequence[float]) -> float:
    return math.fsum(probabilities) / len(probabilities)


AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "last": lambda probabilities: probabilities[-1],
    "mean": _mean,
}
