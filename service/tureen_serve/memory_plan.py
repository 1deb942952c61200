"""The most memory that this process takes: what it has once the models are loaded, and what its limits allow besides.

The sum is a bound by construction of each part, as far as this process allocates it. Models that are loaded on demand
come on top, up to ``rewards_memory_gib``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tureen_serve.inference.native_heap import KEPT_BYTES
from tureen_serve.limit_settings import ServerLimits

MIB = 2**20
GIB = 2**30
BODY_COPIES = 4  # a body, its parsed values, the texts that are rendered from them, and the reply
SCORE_BYTES = 512  # a cached score with its key
TOKEN_BYTES = 64  # a token that waits: its integer, and its place in a row
STATUS = Path("/proc/self/status")
MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryPlan:
    """The parts of the bound, in bytes.

    Attributes:
        parts: by name. ``loaded`` is what the process had when its models were loaded.
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The bound."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.parts.items())
        return f"at most {self.total / GIB:.2f} GiB: {parts}"

    def fit(self, memory_gib: float | None) -> "MemoryPlan":
        """Make the plan fit into ``memory_gib``: kept prompts get what the other parts leave, at most their own limit.

        Raises:
            ValueError: the other parts alone need more.
        """
        if memory_gib is None:
            return self
        rest = int(memory_gib * GIB) - (self.total - self.parts["prompts"])
        if rest < 0:
            raise ValueError(
                f"limits.memory_gib: {memory_gib:g} GiB are too few: the server takes {self}; raise it, or lower "
                "limits.text_mib, batch_tokens, queue_tokens or bodies_mib"
            )
        return replace(self, parts={**self.parts, "prompts": min(rest, self.parts["prompts"])})


def plan_memory(limits: ServerLimits, loaded: int, scorers: int, families: int, workspace: int) -> MemoryPlan:
    """Plan the memory of a server whose models are loaded.

    Args:
        loaded: the bytes that the process takes now.
        scorers: the number of backbones that score.
        families: the number of policy families.
        workspace: the bytes that a batch takes.
    """
    return MemoryPlan(
        {
            "loaded": loaded,
            "prompts": limits.prompt_mib * MIB if scorers else 0,
            "texts": limits.text_mib * MIB if families else 0,
            "batch": workspace * max(1, scorers),
            "scores": limits.kept_scores * SCORE_BYTES * scorers,
            "queue": limits.queue_tokens * TOKEN_BYTES * scorers,
            "bodies": limits.bodies_mib * MIB * BODY_COPIES,
            "heap": KEPT_BYTES,
        }
    )


def plan_lane(limits: ServerLimits, workspace: int) -> int:
    """Plan the memory of one more lane that scores, without its weights."""
    return workspace + limits.kept_scores * SCORE_BYTES + limits.queue_tokens * TOKEN_BYTES


def read_available_bytes() -> int | None:
    """Read how much memory this process can still take: of the machine, and of its container; None if unknown."""
    found = []
    if MACHINE.exists():
        line = next(line for line in MACHINE.read_text().splitlines() if line.startswith("MemAvailable"))
        found.append(int(line.split()[1]) * 1024)
    bound = CONTAINER / "memory.max"
    if bound.exists() and (text := bound.read_text().strip()) != "max":
        found.append(int(text) - int((CONTAINER / "memory.current").read_text()))
    return max(0, min(found)) if found else None


def read_resident_bytes() -> int:
    """Read the resident memory of this process; 0 where the system has no ``/proc``."""
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
