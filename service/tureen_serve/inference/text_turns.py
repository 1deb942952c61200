"""Texts that wait for their turn in a lane, and how many tokens are ahead of a new one."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from tureen_serve.inference.demand import DEADLINE
from tureen_serve.runtimes.contract import GenerationJob
from tureen_serve.runtimes.upstream_contract import UpstreamJob

RECENT = 0.1  # weight of the last text in the mean length


@dataclass(eq=False, slots=True)
class TextTurn:
    """A text in a lane.

    Attributes:
        clock: the deadline of its request, which all texts of the request share; None for lines of batches.
        tokens: those that it has. It waits as long as there are none.
    """

    job: GenerationJob | UpstreamJob
    clock: asyncio.Timeout | None = field(default_factory=DEADLINE.get)
    tokens: int = 0


class TextLengths:
    """How long the texts of a lane become: a moving mean, since most end before they reach ``max_tokens``."""

    def __init__(self) -> None:
        self._mean = 0.0

    def note(self, turn: TextTurn) -> None:
        """Note a text that has ended by itself. One that was only to be read says nothing about lengths."""
        if not turn.job.sampling.max_tokens:
            return
        self._mean += RECENT * (turn.tokens - self._mean) if self._mean else turn.tokens

    def count_ahead(self, turns: Iterable[TextTurn]) -> int:
        """Count the tokens that the waiting texts of other requests will have, about."""
        own = DEADLINE.get()
        waiting = [each for each in turns if not each.tokens and (each.clock is None or each.clock is not own)]
        return round(sum(self._expect(each.job) for each in waiting))

    def _expect(self, job: GenerationJob | UpstreamJob) -> float:
        most = job.sampling.max_tokens
        return min(self._mean, most) if self._mean else most
