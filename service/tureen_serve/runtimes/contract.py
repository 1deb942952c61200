"""The contract of a runtime: the data that lanes and runtimes exchange, and the protocols that a runtime satisfies."""

import hashlib
from array import array
from collections.abc import AsyncGenerator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from tureen.errors import TureenError
from tureen_core.soup import Semantics
from tureen_serve.runtimes.grammars import GrammarBook
from tureen_serve.runtimes.sampling_fields import Sampling

Weights = tuple[tuple[str, float], ...]
Finish = Literal["stop", "length"]
Head = Literal["score", "gate"]


@dataclass(frozen=True, slots=True)
class Row:
    """One text to score with one reward model, or with a soup of them. Equal rows are computed once.

    Attributes:
        ids: the token ids of the text.
        blend: the weights of the adapters, as canonical ``((adapter, weight), …)``.
        shared: the number of ids of the prompt, ``ids[:shared]``, which other rows may have too.
        head: ``score`` for rewards; ``gate`` for the coefficients that a gated model gives its rewards.
        digest: a hash of the ids, the blend and the head, computed when the row is made, in a thread.
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
    """The output of a head for one row.

    Attributes:
        values: the head's K rewards, float32 and not calibrated, or a gate's K coefficients.
        cached: how many tokens of the row were already computed for another row.
    """

    values: tuple[float, ...]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of one batch: its rows, and its tokens, which count padding if ``padded`` is true."""

    batch_tokens: int = 8192
    batch_rows: int = 64
    padded: bool = True


class Scorer(Protocol):
    """A backbone and the reward models that use it.

    Attributes:
        limits: the limits of one batch.
        threads: how many threads may call ``run`` at once; more than one if the runtime batches by itself.
        description: how it computes, for the log.
    """

    limits: BatchLimits
    threads: int
    description: str

    @property
    def failure(self) -> str | None:
        """None while it can run, else a sentence that says why not."""

    @property
    def dead(self) -> bool:
        """Whether it can never run again in this process."""

    @property
    def memory_failures(self) -> int:
        """How often memory has run out."""

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Score rows: the rewards of each or its error, in order. A row's rewards do not depend on the other rows.

        Args:
            fresh: neither use results of earlier batches nor keep results for later ones. Then a batch job that runs
                again gives the same numbers to the last bit.
        """

    def close(self) -> None:
        """Free the weights."""


@dataclass(frozen=True, slots=True)
class GenerationJob:
    """One text to generate: the prompt's ids, how to sample, and the canonical soup (empty for the bare base)."""

    ids: tuple[int, ...]
    sampling: Sampling
    weights: Weights = ()
    semantics: Semantics = "delta"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of a token and those of the likeliest tokens, in nats, without temperature and penalties.

    ``rank`` counts the tokens that are at least as likely, 0 if unknown. An upstream tells no ids: ``id`` is -1 there.
    """

    token: str
    id: int
    logprob: float
    top: tuple[tuple[str, int, float], ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """What an upstream says of itself in its reply: the name of its model, and its ``system_fingerprint``."""

    model: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a text.

    Attributes:
        text: its final characters.
        tokens: their number. The last delta of an upstream has what its count differs from the deltas before.
        finish: why the text ended, if it did.
        read, cached: the tokens of the prompt as an upstream counts them, in the last delta; else 0.
        origin: what an upstream says of itself, in one of the deltas.
        prompt: in the first delta, if asked for: the log-probabilities of the prompt's tokens after the first.
    """

    text: str
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = field(default=())
    finish: Finish | None = None
    read: int = 0
    cached: int = 0
    origin: Origin | None = None
    prompt: tuple[TokenLogprob, ...] | None = None


class PolicyRuntime(Protocol):
    """A policy family, whose jobs have weights of their own: prompt and text have ``context`` tokens at most.

    ``description`` says for the log how it computes, and ``grammars`` keeps the compiled grammars.
    """

    context: int
    description: str
    grammars: GrammarBook

    @property
    def failure(self) -> str | None:
        """None while it can run, else a sentence that says why not."""

    @property
    def dead(self) -> bool:
        """Whether it can never run again in this process."""

    @property
    def memory_failures(self) -> int:
        """How often memory has run out."""

    def check(self, job: GenerationJob) -> None:
        """Raise ``Unprocessable`` if a job cannot run."""

    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        """Compute the log-probability in nats of each of ``ids[start:]``, given the ids before it. Blocks."""

    def close(self) -> None:
        """End the running texts and free the weights."""


@runtime_checkable
class Generator(PolicyRuntime, Protocol):
    """A policy family whose runtime forms the batches itself."""

    def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Generate the text of a job that ``check`` accepts. Closing the iterator ends the job.

        Raises:
            Unavailable: the runtime died while the job ran.
            ServerFault: the runtime failed on this job.
        """

    def abandon(self, error: TureenError) -> None:
        """End the running texts with an error."""


class Stepper(PolicyRuntime, Protocol):
    """A policy family whose batch advances one step per call. All methods but ``check`` are called from one thread."""

    @property
    def active(self) -> bool:
        """Whether a job is running or waiting."""

    @property
    def running(self) -> int:
        """The number of texts in the batch."""

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a place in the batch."""

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Queue a job that ``check`` accepts, under a key of the caller's choice."""

    def drop(self, key: Hashable) -> None:
        """Cancel the job of a key, waiting or running."""

    def step(self) -> list[tuple[Any, TextDelta | TureenError]]:
        """Advance every running text by one token: a delta or an error for each, with the job's key."""
