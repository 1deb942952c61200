"""A text that is being generated, and the limits of a batch of them."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from tureen_serve.runtimes.contract import GenerationJob
from tureen_serve.runtimes.grammars import GrammarState
from tureen_serve.runtimes.on_transformers.prompt_reading import Readings
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture
from tureen_serve.runtimes.on_transformers.sampling import Sampler
from tureen_serve.runtimes.text_stream import TextStream


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The limits of one batch of running texts.

    Attributes:
        rows: the number of texts.
        cache_tokens: the number of texts times the largest length that one of them can reach, prompt included.
        prefill_tokens: the tokens of the prompts that join in one step, with padding.
    """

    rows: int = 32
    cache_tokens: int = 65536
    prefill_tokens: int = 8192


@dataclass(slots=True)
class RunningText:
    """A running text, its sampler and what it has so far.

    Attributes:
        grammar: where the text is in its grammar; None if it has none.
        drawn: the ids that were drawn. The last one was not run yet.
        readings: of the prompt, until they are in a delta.
        over: whether it leaves the batch after the step.
    """

    key: Hashable
    job: GenerationJob
    sampler: Sampler
    text: TextStream
    grammar: GrammarState | None = None
    drawn: list[int] = field(default_factory=list)
    readings: Readings | None = None
    over: bool = False

    @property
    def reads(self) -> bool:
        """Whether the log-probabilities of its prompt are asked for and were not given."""
        return self.job.sampling.prompt_logprobs is not None and not self.drawn

    @property
    def ids(self) -> tuple[int, ...]:
        """The prompt and all that was drawn."""
        return (*self.job.ids, *self.drawn)

    @property
    def mixture(self) -> Mixture:
        """The weights and semantics of its gate row."""
        return self.job.weights, self.job.semantics
