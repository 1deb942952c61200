"""Generate texts with vLLM. Each request has its own soup, by the gate or as a LoRA, and streams its text."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import Finish, GenerationJob, TextDelta, TokenLogprob, Weights
from tureen_serve.runtimes.grammars import GrammarBook
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.on_vllm.adapters import Adapters, borrow_adapter, format_gate_name
from tureen_serve.runtimes.on_vllm.engine import VllmEngine
from tureen_serve.runtimes.sampling_fields import Sampling

LOG = logging.getLogger(__name__)
Say = Callable[[TextDelta | TureenError], None]


class VllmGenerator:
    """A policy family.

    Args:
        engine: a generating engine.
        adapters: the engine's adapters; None if the family has no experts.
        tokenizer: the engine's.
    """

    memory_failures = 0  # vLLM lets texts wait by itself

    def __init__(self, engine: VllmEngine, adapters: Adapters | None, tokenizer: Any) -> None:
        self._engine = engine
        self._adapters = adapters
        self._listeners: dict[Say, None] = {}
        model = engine.config.model_config
        self.context: int = model.max_model_len
        self._vocabulary: int = model.get_vocab_size()
        ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]  # those that vLLM's grammars allow
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
        grammar = job.sampling.grammar.start() if job.sampling.grammar else None
        try:
            async with borrow_adapter(self._adapters, job.weights, job.semantics) as adapter:
                async for output in self._engine.generate(job.ids, _sampling(job.sampling), adapter, salt):
                    delta = _delta(job, output)
                    if grammar is not None:  # vLLM only logs that a grammar has failed, and ends the text
                        for token in output.outputs[0].token_ids:
                            grammar.accept(token)
                    say(delta)
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
        stop=list(given.stop) or None,
        logprobs=given.logprobs,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        repetition_penalty=given.repetition_penalty,
        logit_bias=dict(given.logit_bias) or None,
        prompt_logprobs=given.prompt_logprobs,
        structured_outputs=StructuredOutputsParams(grammar=given.grammar.text) if given.grammar else None,
        output_kind=RequestOutputKind.DELTA,
    )


def _delta(job: GenerationJob, given: Any) -> TextDelta:
    output, wants = given.outputs[0], job.sampling
    prompt = None
    if given.prompt_logprobs and wants.prompt_logprobs is not None:
        rows = zip(job.ids[1:], given.prompt_logprobs[1:], strict=True)
        prompt = tuple(_logprob(token, row, wants.prompt_logprobs) for token, row in rows)
    if not wants.max_tokens:
        return TextDelta("", finish="length", prompt=prompt)
    logprobs: tuple[TokenLogprob, ...] = ()
    if wants.logprobs is not None:
        rows = zip(output.token_ids, output.logprobs or (), strict=False)
        logprobs = tuple(_logprob(token, row, wants.logprobs) for token, row in rows)
    return TextDelta(output.text, len(output.token_ids), logprobs, _finish(output.finish_reason), prompt=prompt)


def _finish(reason: str | None) -> Finish | None:
    if reason is None:
        return None
    if reason in ("stop", "length"):
        return "stop" if reason == "stop" else "length"
    raise ServerFault(f"vLLM ended the text with {reason!r}", code="runtime_failed")


def _logprob(token: int, row: Mapping[int, Any], alternatives: int) -> TokenLogprob:
    """Convert the log-probabilities of a token and of the likeliest ``alternatives``, without temperature."""
    best = sorted(row.items(), key=lambda item: item[1].rank)[:alternatives]
    top = tuple((each.decoded_token or "", other, float(each.logprob)) for other, each in best)
    chosen = row[token]
    return TokenLogprob(chosen.decoded_token or "", token, float(chosen.logprob), top, chosen.rank)
