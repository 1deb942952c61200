"""Generate texts with vLLM. Each request has its own soup, by the gate or as a LoRA, and streams its text."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import GenerationJob, TextDelta, Weights
from tureen_serve.runtimes.grammars import GrammarBook
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.on_vllm.adapters import Adapters, borrow_adapter, format_gate_name
from tureen_serve.runtimes.on_vllm.engine import VllmEngine
from tureen_serve.runtimes.on_vllm.output_reader import OutputReader
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.text_stream import SLOW_TOKENIZER, TokenNames

LOG = logging.getLogger(__name__)
Say = Callable[[TextDelta | TureenError], None]


class VllmGenerator:
    """A policy family.

    Args:
        engine: a generating engine.
        adapters: the engine's adapters; None if the family has no experts.
        tokenizer: the engine's.

    Raises:
        ValueError: the tokenizer is not a fast one.
    """

    memory_failures = 0  # vLLM lets texts wait by itself

    def __init__(self, engine: VllmEngine, adapters: Adapters | None, tokenizer: Any) -> None:
        self._engine = engine
        self._adapters = adapters
        self._listeners: dict[Say, None] = {}
        model = engine.config.model_config
        self.context: int = model.max_model_len
        self._vocabulary: int = model.get_vocab_size()
        if not tokenizer.is_fast:
            raise ValueError(SLOW_TOKENIZER)
        ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]  # those that vLLM's grammars allow
        self._backend = tokenizer.backend_tokenizer
        self._names = TokenNames(self._backend)
        self.grammars = GrammarBook(tokenizer, self._vocabulary, ends)
        how = "the rank gate" if adapters and adapters.gated else "one LoRA for each weight vector"
        self.description = f"vLLM, {how}" if adapters else "vLLM"

    @property
    def failure(self) -> str | None:
        """The engine's failure, or None."""
        return self._engine.failure

    @property
    def dead(self) -> bool:
        """Whether the engine is not started again."""
        return self._engine.dead

    def check(self, job: GenerationJob) -> None:
        """Raise ``Unprocessable`` if a job cannot run; see :func:`~tureen_serve.runtimes.jobs.check_job`."""
        check_job(job, self.context, self._vocabulary, least=1)

    async def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Generate the text of a job on the engine's event loop. Closing the iterator ends the job there.

        Raises:
            Unavailable: the engine is dead.
            ServerFault: the engine failed on this job.
        """
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[TextDelta | TureenError]()

        def say(said: TextDelta | TureenError) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, said)

        self._listeners[say] = None
        pump = self._engine.submit(self._pump(job, say))
        try:
            while True:
                said = await inbox.get()
                if isinstance(said, TureenError):
                    raise said
                yield said
                if said.finish:
                    return
        finally:
            del self._listeners[say]
            pump.cancel()

    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        """Compute the log-probability in nats of each of ``ids[start:]``, given the ids before it."""
        return self._engine.wait(self._likelihood(ids, start, weights, semantics))

    def close(self) -> None:
        """End the engine. Streams that still run get ``Unavailable``."""
        self.abandon(Unavailable("the server is shutting down", code="draining"))
        self._engine.close()

    def abandon(self, error: TureenError) -> None:
        """End the running texts with an error."""
        for say in list(self._listeners):
            say(error)

    async def _pump(self, job: GenerationJob, say: Say) -> None:
        salt = format_gate_name(job.weights, job.semantics)
        reader = OutputReader(self._backend, self._names, job)
        try:
            async with (
                borrow_adapter(self._adapters, job.weights, job.semantics) as adapter,
                aclosing(self._engine.generate(job.ids, _sampling(job.sampling), adapter, salt)) as outputs,
            ):
                async for output in outputs:
                    delta = reader.read(output)
                    say(delta)
                    if delta.finish:
                        return
        except TureenError as error:
            say(error)
        except Exception as error:  # the reader of the stream learns of it only from here
            LOG.exception("%s failed on a text", self._engine.name)
            say(ServerFault(f"{self._engine.name} failed ({type(error).__name__})", code="runtime_failed"))

    async def _likelihood(self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics) -> list[float]:
        async with borrow_adapter(self._adapters, weights, semantics) as adapter:
            return await self._engine.likelihood(ids, start, adapter, format_gate_name(weights, semantics))


def _sampling(given: Sampling) -> SamplingParams:
    return SamplingParams(
        max_tokens=given.max_tokens or 1,  # vLLM always writes a token
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        min_p=given.min_p,
        seed=None if given.seed is None else given.seed % 2**63,  # vLLM takes -1 for no seed
        min_tokens=given.min_tokens,
        ignore_eos=given.ignore_eos,
        stop_token_ids=list(given.stop_tokens) or None,
        detokenize=False,  # texts and their stop strings are read here, as those of the other runtime
        logprobs=given.logprobs,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        repetition_penalty=given.repetition_penalty,
        logit_bias=dict(given.logit_bias) or None,
        prompt_logprobs=given.prompt_logprobs,
        structured_outputs=StructuredOutputsParams(grammar=given.grammar.text) if given.grammar else None,
        output_kind=RequestOutputKind.DELTA,
    )
