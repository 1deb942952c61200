"""Learning rates by step."""

from typing import Any

import pytest

from tureen_train.config import Optimisation
from tureen_train.policies.ppo.schedule import list_rate_shares


def shares(steps: int, **changes: Any) -> list[float]:
    return list_rate_shares(Optimisation(**changes), steps)


def test_linear_decay_after_a_warm_up() -> None:
    assert shares(10, schedule="linear", warmup=0.2) == pytest.approx(
        [0.5, 1.0, *[(11 - step) / 9 for step in range(3, 11)]]
    )


def test_a_constant_rate_has_no_warm_up_and_no_decay() -> None:
    assert shares(3, schedule="constant", warmup=0.5) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup", "polynomial", "inverse_sqrt"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_step_is_without_a_rate(schedule: str, steps: int) -> None:
    found = shares(steps, schedule=schedule, warmup=0.1, learning_rate=1e-3)
    assert len(found) == steps
    assert all(0 < share <= 1 for share in found)
