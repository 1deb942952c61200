"""The stated bound of memory: its parts, how it fits into less, and when it cannot."""

from pathlib import Path

import pytest

from tureen_serve import memory_plan
from tureen_serve.limit_settings import ServerLimits
from tureen_serve.memory_plan import GIB, MIB, plan_lane, plan_memory, read_available_bytes

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


def test_one_more_lane_takes_what_the_plan_of_one_more_backbone_does() -> None:
    one, two = (plan_memory(LIMITS, GIB, scorers, 0, 100 * MIB).total for scorers in (1, 2))
    assert plan_lane(LIMITS, 100 * MIB) == two - one


def test_the_free_memory_is_that_of_the_machine_and_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (read_available_bytes() or 0) > 0
    machine, container = tmp_path / "meminfo", tmp_path / "group"
    monkeypatch.setattr(memory_plan, "MACHINE", machine)
    monkeypatch.setattr(memory_plan, "CONTAINER", container)
    assert read_available_bytes() is None
    machine.write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    container.mkdir()
    (container / "memory.max").write_text("max\n")
    assert read_available_bytes() == 4000 * 1024
    (container / "memory.max").write_text(f"{3 * MIB}\n")
    (container / "memory.current").write_text(f"{MIB}\n")
    assert read_available_bytes() == 2 * MIB
    (container / "memory.current").write_text(f"{4 * MIB}\n")
    assert read_available_bytes() == 0
