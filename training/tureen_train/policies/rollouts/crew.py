"""The processes that a launcher started, which share the writing of answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


class CrewError(ValueError):
    """Another process of the run failed. The message says which one, and why."""


@dataclass(frozen=True)
class _Made(Generic[T]):
    """What a process made, as the others are told of it: ``values`` has it, or ``told`` says what went wrong."""

    values: tuple[T, ...] = ()
    told: str = ""


class Crew:
    """All processes of a run. Every process must make the same calls, in the same order.

    Attributes:
        rank: this process's, from 0. Process 0 reads and writes the files.
        count: the number of processes.
    """

    def __init__(self) -> None:
        state = PartialState(cpu=not torch.cuda.is_available())  # else it overlooks a launcher's ranks without a GPU
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

    def lead(self, make: Callable[[], T]) -> T:
        """Let process 0 alone make a value. Returns it in all processes.

        Raises:
            CrewError: it failed, in the other processes; process 0 raises the error itself. So none waits for ever.
        """
        if self.count == 1:
            return make()
        own, error = _attempt(make) if self.writes else (_Made[T](), None)
        return self._open([self.share(own)], error)[0]

    def gather(self, make: Callable[[], T]) -> list[T]:
        """Let each process make a value. Returns those of all, in the order of their ranks.

        Raises:
            CrewError: another process failed; one that fails raises the error itself.
        """
        if self.count == 1:
            return [make()]
        own, error = _attempt(make)
        return self._open(gather_object([own]), error)

    @staticmethod
    def _open(found: list[_Made[T]], error: Exception | None) -> list[T]:
        if error is not None:
            raise error
        for rank, each in enumerate(found):
            if each.told:
                raise CrewError(f"process {rank} of the run failed: {each.told}")
        return [each.values[0] for each in found]


def _attempt(make: Callable[[], T]) -> tuple[_Made[T], Exception | None]:
    """Make a value, or return the error. An error itself may be none that can be sent to other processes."""
    try:
        return _Made((make(),)), None
    except Exception as error:
        return _Made(told=f"{type(error).__name__}: {error}"), error
