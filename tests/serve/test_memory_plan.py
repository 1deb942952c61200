"""The stated bound of memory: its parts, how it fits into less, and when it cannot."""

import pytest

from tureen_serve.limit_settings import ServerLimits
from tureen_serve.memory_plan import GIB, MIB, plan_memory

LIMITS = ServerLimits(prompt_mib=512, text_mib=256, kept_scores=1000, queue_tokens=1000, bodies_mib=10)


def test_the_bound_is_the_sum_of_its_parts() -> None:
    plan = plan_memory(LIMITS, loaded=GIB, scorers=2, families=1, workspace=100 * MIB)
    parts = {"prompts": 512, "texts": 256, "batch": 200, "bodies": 40, "heap": 256, "loaded": 1024}
    assert {name: plan.parts[name] / MIB for name in parts} == parts
    assert plan.parts["scores"] == 2 * 1000 * 512
    assert plan.parts["queue"] == 2 * 1000 * 64
    assert plan.total == sum(plan.parts.values())
    assert "at most 2.24 GiB" in str(plan)


def test_what_is_not_served_takes_nothing() -> None:
    parts = plan_memory(LIMITS, loaded=GIB, scorers=0, families=0, workspace=0).parts
    assert [parts[name] for name in ("prompts", "texts", "scores", "queue")] == [0, 0, 0, 0]


@pytest.mark.parametrize(("room", "prompts"), [(None, 512), (9.0, 512), (2.0, 271)])
def test_kept_prompts_get_what_the_rest_leaves(room: float | None, prompts: int) -> None:
    plan = plan_memory(LIMITS, loaded=GIB, scorers=2, families=1, workspace=100 * MIB).fit(room)
    assert plan.parts["prompts"] / MIB == pytest.approx(prompts, abs=1.5)
    assert room is None or plan.total <= room * GIB


def test_a_bound_below_the_other_parts_is_refused_by_name() -> None:
    plan = plan_memory(LIMITS, loaded=GIB, scorers=2, families=1, workspace=100 * MIB)
    with pytest.raises(ValueError, match=r"limits.memory_gib: 1.5 GiB are too few.*limits.text_mib"):
        plan.fit(1.5)
