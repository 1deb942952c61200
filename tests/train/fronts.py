"""Measured fronts of a few numbers, for the tests of their figures and pages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tureen_train.front.answers import WrittenAnswer
from tureen_train.front.measured import MeasuredFront, MeasuredMethod


def method(name: str, rewards: Mapping[str, Any], text: str = "a fox", **fields: Any) -> MeasuredMethod:
    """A method with rewards ``[prompts, objectives]`` by point."""
    answers = {
        point: [WrittenAnswer(name, point, str(at), text, True, 4, 0.5) for at in range(len(rows))]
        for point, rows in rewards.items()
    }
    table = np.array(list(rewards.values()), dtype=np.float64)
    return MeasuredMethod(name, list(rewards), answers, table, **{"shares": {}, **fields})


def front(methods: Sequence[MeasuredMethod], objectives: Sequence[str] = ("a", "b"), **fields: Any) -> MeasuredFront:
    """A front whose grid has the corners; the first method is the baseline."""
    told: dict[str, Any] = {
        "name": "zoo",
        "objectives": objectives,
        "units": dict.fromkeys(objectives, "deviations"),
        "reference": [0.0] * len(objectives),
        "tolerance": 0.01,
        "grid": {f"{name}=1": {name: 1.0} for name in objectives},
        "prompts": {str(at): f"why {at}?" for at in range(methods[0].rewards.shape[1])},
        "methods": {each.name: each for each in methods},
        "baseline": methods[0].name,
        "judge": None,
    }
    return MeasuredFront(**{**told, **fields})
