"""Generate texts with a transformers model. Each step samples one token of every running text.

Texts join and leave between steps. Each has its own gate row, sampling and random generator, so it does not depend on
the other texts. Where memory runs out, the younger half of the texts waits, and is computed again from its tokens; only
a text that does not fit alone ends with an error. This module has no threads and no clock: the lane calls ``step``.
"""

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen.errors import ServerFault, TureenError
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import GenerationJob, Weights
from tureen_serve.runtimes.grammars import GrammarBook
from tureen_serve.runtimes.halving import run_halved
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.on_transformers.accelerator import (
    DeviceRuntime,
    is_out_of_memory,
    make_memory_error,
    translate_device_failure,
)
from tureen_serve.runtimes.on_transformers.cache_rows import CacheRows
from tureen_serve.runtimes.on_transformers.drawing import Drawer, Said
from tureen_serve.runtimes.on_transformers.prompt_runs import PromptRuns
from tureen_serve.runtimes.on_transformers.rank_gate import RankGate
from tureen_serve.runtimes.on_transformers.running_text import RunningText, StepLimits
from tureen_serve.runtimes.on_transformers.sampling import Sampler, collect_ends
from tureen_serve.runtimes.on_transformers.text_queue import TextQueue
from tureen_serve.runtimes.text_stream import SLOW_TOKENIZER, open_stream


class TransformersStepper(DeviceRuntime):
    """Continuous batching of one policy family.

    Args:
        model: a Hugging Face causal model with the experts attached.
        gate: the model's gate.
        tokenizer: a fast tokenizer, to decode the texts.
        limits: the limits of the batch. Other jobs wait, first come first served.

    Raises:
        ValueError: the model's cache holds more than keys and values, or the tokenizer is not a fast one.
    """

    description = "one batch, a token a step"

    def __init__(self, model: Any, gate: RankGate, tokenizer: Any, limits: StepLimits) -> None:
        super().__init__()
        if any(DynamicCache(config=model.config).is_linear):
            raise ValueError(
                f"{type(model).__name__} keeps recurrent states, which cannot be batched step by step here"
            )
        if not tokenizer.is_fast:
            raise ValueError(SLOW_TOKENIZER)
        self.context: int = model.config.max_position_embeddings
        self._vocabulary: int = model.config.vocab_size
        self._model = model.eval()
        self._gate = gate
        self._backend = tokenizer.backend_tokenizer
        ends = collect_ends(model.generation_config.eos_token_id, tokenizer.eos_token_id)
        self._ends = frozenset(end for end in ends if end < self._vocabulary)
        self._drawer = Drawer(self._backend, self._ends, self._is_out_of_memory)
        self.grammars = GrammarBook(tokenizer, self._vocabulary, sorted(ends))
        self._rows = CacheRows(model)
        self._runs = PromptRuns(model, gate, self._rows)
        self._texts: list[RunningText] = []
        self._queue = TextQueue(limits, self._begin)

    @property
    def active(self) -> bool:
        """Whether a job is running or waiting."""
        return bool(self._texts or self._queue)

    @property
    def running(self) -> int:
        """The number of texts in the batch."""
        return len(self._texts)

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a place in the batch."""
        return len(self._queue)

    def check(self, job: GenerationJob) -> None:
        """Raise ``Unprocessable`` if a job cannot run; see :func:`~tureen_serve.runtimes.jobs.check_job`."""
        check_job(job, self.context, self._vocabulary)

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Queue a job that :meth:`check` accepts, under a key of the caller's choice."""
        self._queue.add(key, job)

    def drop(self, key: Hashable) -> None:
        """Cancel the job of a key, waiting or running."""
        self._queue.drop(key)
        for running in self._texts:
            running.over |= running.key == key
        self._leave()

    @translate_device_failure()
    @torch.inference_mode()
    def step(self) -> Said:
        """Admit waiting jobs, and sample one token of every running text.

        Returns:
            A delta or an error of each text, with its key.

        Raises:
            Unavailable: the accelerator has failed permanently.
        """
        logits, failed = self._advance()
        found, refused = self._join(self._queue.admit(self._texts))
        said, tired = self._drawer.draw(self._texts, [*logits, *found])
        forgone = self._rest(tired)
        self._leave()
        return [*said, *failed, *refused, *forgone]

    @torch.inference_mode()
    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        """Compute the log-probability in nats of each of ``ids[start:]``, given the ids before it."""
        self._gate.set_rows([(weights, semantics)])
        tokens = torch.tensor([ids], device=self._model.device)
        kept = len(ids) - start + 1
        logits = self._model(input_ids=tokens, use_cache=False, logits_to_keep=kept).logits[0, :-1].float()
        chosen: list[float] = logits.log_softmax(-1).gather(1, tokens[0, start:, None]).flatten().tolist()
        return chosen

    def close(self) -> None:
        """Drop all jobs and free the weights."""
        self._texts = []
        del self._rows, self._runs, self._model, self._gate, self._queue

    # ----------------------------------------------------------------------- joining and leaving

    def _advance(self) -> tuple[list[Tensor], Said]:
        """Run the last token of every running text, and return the logits of the next tokens.

        Where memory runs out, the younger half of the texts pauses, until the others fit. One that does not fit alone
        has an error.
        """
        while self._texts:
            try:
                self._gate.set_rows([running.mixture for running in self._texts])
                return [self._rows.advance([running.drawn[-1] for running in self._texts])], []
            except Exception as error:
                if not self._is_out_of_memory(error):
                    raise
            if len(self._texts) == 1:
                self._texts[0].over = True
                failed: Said = [(self._texts[0].key, make_memory_error())]
                self._leave()
                return [], failed
            self._keep_first(len(self._texts) // 2)
        return [], []

    def _keep_first(self, count: int) -> None:
        """Pause all running texts but the first ones. This takes no memory."""
        self._queue.narrow(max(count, len(self._texts) // 2))
        self._texts, others = self._texts[:count], self._texts[count:]
        self._rows.keep(range(count))
        self._queue.pause(others)

    def _begin(self, key: Hashable, job: GenerationJob) -> RunningText:
        sampler = Sampler(job.sampling, self._model.device, job.ids, self._ends)
        grammar = job.sampling.grammar
        return RunningText(key, job, sampler, open_stream(self._backend, job), grammar.start() if grammar else None)

    def _join(self, joining: Sequence[RunningText]) -> tuple[list[Tensor], Said]:
        """Run the prompts of new texts. Returns the first logits of those that run, and the errors of the others.

        A prompt for which there is no memory beside the running texts waits until one of these has ended.
        """
        logits: list[Tensor] = []
        failed: Said = []
        back: list[RunningText] = []
        reading = [running for running in joining if running.reads]
        others = [running for running in joining if not running.reads]
        groups = ((reading, self._runs.read), (others, self._runs.prefill))
        runs = (run_halved(texts, run, self._is_fatal) for texts, run in groups if texts)
        for part, found in chain.from_iterable(runs):
            if isinstance(found, Exception) and self._texts and is_out_of_memory(found):
                self._queue.narrow(len(self._texts))
                back += part
            elif isinstance(found, Exception):
                failed.append((part[0].key, _blame(found)))
            else:
                self._texts += part
                logits.append(found)
        self._queue.pause(back)
        return logits, failed

    def _is_fatal(self, error: Exception) -> bool:
        """Whether an error hurts all texts: the accelerator has failed. Out of memory is counted."""
        self._is_out_of_memory(error)
        return isinstance(error, torch.AcceleratorError)

    def _leave(self) -> None:
        """Remove the texts that are over from the batch. If there is no memory to keep the others, these pause."""
        stay = [index for index, running in enumerate(self._texts) if not running.over]
        self._queue.widen(len(self._texts) - len(stay))
        self._texts = [self._texts[index] for index in stay]
        if not self._rows.torn:
            try:
                self._rows.keep(stay)
                return
            except Exception as error:
                if not self._is_out_of_memory(error):
                    raise
        self._keep_first(0)

    def _rest(self, tired: Sequence[RunningText]) -> Said:
        """Take texts without memory out of the batch. They pause, but one that ran alone ends with an error."""
        if not tired:
            return []
        alone = len(self._texts) == 1
        self._queue.narrow(len(self._texts) // 2)
        for running in tired:
            running.over = True
        self._leave()
        if alone:
            return [(running.key, make_memory_error()) for running in tired]
        self._queue.pause(tired)
        return []


def _blame(error: Exception) -> TureenError:
    """Make the error of a text whose prompt alone could not be run."""
    if is_out_of_memory(error):
        return make_memory_error()
    return ServerFault(f"the model failed on this text ({type(error).__name__})", code="runtime_failed")
