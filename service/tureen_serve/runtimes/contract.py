"""What a runtime is: the nouns that cross between lanes and runtimes, and the two protocols.

Everything here is plain data on token ids; templates and wire types stay above.
"""

import hashlib
from array import array
from collections.abc import AsyncGenerator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from tureen.errors import TureenError
from tureen_core.soup import Semantics

Weights = tuple[tuple[str, float], ...]
Finish = Literal["stop", "length"]
Head = Literal["score", "gate"]


@dataclass(frozen=True, slots=True)
class Row:
    """One text for one reward model or soup of them.

    ``ids[:shared]`` is the prompt that other rows may share; ``blend`` is canonical ``((adapter, weight), …)``; a
    ``gate`` reads off a prompt's end how much each reward counts there. Equal rows are computed once. ``digest`` stands
    for the ids, the blend and the head: made here, once, since rows are made beside the event loop and looked up on it.
    """

    ids: tuple[int, ...]
    blend: Weights
    shared: int = 0
    head: Head = "score"
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        content = array("q", self.ids).tobytes() + repr((self.blend, self.head)).encode()
        object.__setattr__(self, "digest", hashlib.blake2b(content, digest_size=16).digest())

    def __hash__(self) -> int:
        return hash((self.digest, self.shared))


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a head made of one row: its K columns, float32, not calibrated, or a gate's K coefficients.

    ``cached`` tokens were another row's.
    """

    values: tuple[float, ...]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold: rows, and tokens as they are computed, ``padded`` to the longest or not."""

    batch_tokens: int = 8192
    batch_rows: int = 64
    padded: bool = True


class Scorer(Protocol):
    """One backbone with the reward models that stand on it.

    Attributes:
        limits: what one batch may hold.
        threads: how many threads may ``run`` at once; more than one where the runtime batches by itself.
        failure: None, or the sentence that says why nothing can run at the moment.
        description: how it computes, for the log.
    """

    limits: BatchLimits
    threads: int
    description: str

    @property
    def failure(self) -> str | None:
        """None while it can run."""

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Rewards of each row or what became of it instead, in order; not dependent on what else is in the batch.

        ``fresh`` uses nothing that earlier batches computed and leaves nothing to later ones: a job's numbers are the
        same to the last bit when it runs again.
        """

    def close(self) -> None:
        """Free the weights."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. ``logprobs`` is how many alternatives to report, None for no log-probabilities."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationJob:
    """One text to make: the prompt's ids, the canonical soup (empty: the bare base), how to sample."""

    ids: tuple[int, ...]
    sampling: Sampling
    weights: Weights = ()
    semantics: Semantics = "delta"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (nats, of the tempered-free distribution) of one token, and of the likeliest others."""

    token: str
    id: int
    logprob: float
    top: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a text: characters that are sure to stay, its tokens, and why it ended if it did."""

    text: str
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = field(default=())
    finish: Finish | None = None


class PolicyRuntime(Protocol):
    """One policy family; every job has its own gate.

    Attributes:
        context: the most tokens of prompt and text together.
        description: how it computes, for the log.
    """

    context: int
    description: str

    @property
    def failure(self) -> str | None:
        """None while it can run, else the sentence that says why not."""

    def check(self, job: GenerationJob) -> None:
        """Raise ``Unprocessable`` for a job that cannot run."""

    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        """Log-probability in nats of each of ``ids[start:]`` given all that stands before it. Waits for it."""

    def close(self) -> None:
        """End what is running and free the weights."""


@runtime_checkable
class Generator(PolicyRuntime, Protocol):
    """A policy family that batches by itself."""

    def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Deltas of a job that ``check`` lets pass; closing the iterator frees its place in the batch.

        Raises:
            Unavailable: the runtime has died under it.
            ServerFault: it failed on this job.
        """


class Stepper(PolicyRuntime, Protocol):
    """A policy family that is batched from outside, a step at a time, all from one thread but for ``check``."""

    @property
    def active(self) -> bool:
        """Whether a step would do something."""

    @property
    def running(self) -> int:
        """Texts in the batch."""

    @property
    def waiting(self) -> int:
        """Jobs that found no room yet."""

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Queue a job that ``check`` lets pass."""

    def drop(self, key: Hashable) -> None:
        """Forget a job, waiting or running."""

    def step(self) -> list[tuple[Any, TextDelta | TureenError]]:
        """One token of every running text, or what ended it, by its key."""
