"""The processes that a launcher started, which share the writing of answers."""

from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


class Crew:
    """All processes of a run. Every process must make the same calls, in the same order.

    Attributes:
        rank: this process's, from 0. Process 0 reads and writes the files.
        count: the number of processes.
    """

    def __init__(self) -> None:
        state = PartialState()
        self.rank: int = state.process_index
        self.count: int = state.num_processes

    @property
    def writes(self) -> bool:
        """Whether this process reads and writes the files."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """Return process 0's value in all processes."""
        held = [value]
        if self.count > 1:
            broadcast_object_list(held, from_process=0)
        return held[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        found: list[T] = gather_object([value]) if self.count > 1 else [value]
        return found
