"""Process rewards: what the probabilities of its steps say of the whole answer. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Aggregate = Literal["min", "product", "last", "mean"]


def aggregate_steps(probabilities: Sequence[float], how: Aggregate) -> float:
    """One number for an answer from its steps' probabilities of being right.

    Args:
        probabilities: one a step, 0 to 1.
        how: ``min`` and ``product`` as in Let's Verify Step by Step (arXiv 2305.20050), ``last`` as an outcome reward,
            ``mean`` as RLHFlow ranks answers.

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
