"""The contract of an upstream: a model behind another server, which has a chat template and a tokenizer of its own.

So a prompt goes there as text, and the number of its tokens is the upstream's to tell.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from tureen.errors import TureenError
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.runtimes.sampling_fields import Sampling

Outcome = Literal["answered", "busy", "unreachable", "timeout", "failed", "bad_reply", "denied", "refused"]
WORKING: frozenset[Outcome] = frozenset({"answered", "refused"})
TROUBLE: frozenset[Outcome] = frozenset({"unreachable", "timeout", "failed", "bad_reply", "denied"})


@dataclass(frozen=True, slots=True)
class SpokenPrompt:
    """A prompt before its template: the canonical messages of a conversation, or a bare text if there are none."""

    messages: tuple[Mapping[str, Any], ...] = ()
    text: str = ""


Prompt = Sequence[int] | SpokenPrompt


@dataclass(frozen=True, slots=True)
class UpstreamJob:
    """One text that an upstream is asked for."""

    prompt: SpokenPrompt
    sampling: Sampling


class UpstreamError(Exception):
    """One request to an upstream failed.

    Args:
        outcome: how.
        error: what the caller is told. Its ``retry_after`` is the upstream's.
        again: whether the same request may be answered later.
    """

    def __init__(self, outcome: Outcome, error: TureenError, again: bool = False) -> None:
        super().__init__(error.message)
        self.outcome, self.error, self.again = outcome, error, again


@runtime_checkable
class Upstream(Protocol):
    """A policy family whose texts another server writes.

    Attributes:
        concurrency: how many texts it may be asked for at once.
        retries: how often a request may be sent again.
        description: for the log.
        failure, dead, memory_failures: as of other runtimes. An upstream that does not answer fails its own requests
            and no others, so nothing is ever wrong here.
        trouble: why its last request failed; None if it was answered, or none was sent.
        outcomes: how many requests ended how.
    """

    concurrency: int
    retries: int
    description: str
    failure: None
    dead: bool
    memory_failures: int
    trouble: str | None
    outcomes: Counter[Outcome]

    def check(self, job: UpstreamJob) -> None:
        """Raise ``Unprocessable`` if a job has a sampling field that is not sent on."""

    def stream(self, job: UpstreamJob) -> AsyncGenerator[TextDelta]:
        """Ask for one text, once. Closing the iterator closes the connection, so that the upstream can stop.

        Raises:
            UpstreamError: there was no whole and readable text.
        """

    async def end(self) -> None:
        """Close all connections."""

    def close(self) -> None:
        """Do nothing: an upstream that was never asked has no connections."""
