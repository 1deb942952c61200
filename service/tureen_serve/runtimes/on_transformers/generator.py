"""Generate texts with a transformers model. Each step samples one token of every running text.

Texts join and leave between steps. Each has its own gate row, sampling and random generator, so it does not depend on
the other texts. This module has no threads and no clock: the lane calls ``step``.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen.errors import ServerFault, TureenError
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import Finish, GenerationJob, TextDelta, TokenLogprob, Weights
from tureen_serve.runtimes.halving import run_halved
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.on_transformers.accelerator import (
    is_out_of_memory,
    make_memory_error,
    translate_device_failure,
)
from tureen_serve.runtimes.on_transformers.cache_rows import CacheRows
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture, RankGate
from tureen_serve.runtimes.on_transformers.running_text import RunningText, StepLimits
from tureen_serve.runtimes.on_transformers.sampling import Sampler, collect_ends
from tureen_serve.runtimes.text_stream import TextStream


class TransformersStepper:
    """Continuous batching of one policy family.

    Args:
        model: a Hugging Face causal model with the experts attached.
        gate: the model's gate.
        tokenizer: a fast tokenizer, to decode the texts.
        limits: the limits of the batch. Other jobs wait, first come first served.

    Raises:
        ValueError: the model's cache holds more than keys and values, or the tokenizer is not a fast one.
    """

    failure = None
    dead = False
    description = "one batch, a token a step"

    def __init__(self, model: Any, gate: RankGate, tokenizer: Any, limits: StepLimits) -> None:
        if any(DynamicCache(config=model.config).is_linear):
            raise ValueError(
                f"{type(model).__name__} keeps recurrent states, which cannot be batched step by step here"
            )
        if not tokenizer.is_fast:
            raise ValueError("streaming needs a fast tokenizer: save the base with a tokenizer.json")
        self.context: int = model.config.max_position_embeddings
        self._vocabulary: int = model.config.vocab_size
        self._model = model.eval()
        self._gate = gate
        self._backend = tokenizer.backend_tokenizer
        self._ends = collect_ends(model.generation_config.eos_token_id, tokenizer.eos_token_id)
        self._limits = limits
        self._room = limits.rows
        self._rows = CacheRows(model)
        self._texts: list[RunningText] = []
        self._waiting: dict[Hashable, GenerationJob] = {}
        self._names: dict[int, str] = {}

    @property
    def active(self) -> bool:
        """Whether a job is running or waiting."""
        return bool(self._texts or self._waiting)

    @property
    def running(self) -> int:
        """The number of texts in the batch."""
        return len(self._texts)

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a place in the batch."""
        return len(self._waiting)

    def check(self, job: GenerationJob) -> None:
        """Raise ``Unprocessable`` if a job cannot run; see :func:`~tureen_serve.runtimes.jobs.check_job`."""
        check_job(job, self.context, self._vocabulary)

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Queue a job that :meth:`check` accepts, under a key of the caller's choice."""
        self._waiting[key] = job

    def drop(self, key: Hashable) -> None:
        """Cancel the job of a key, waiting or running."""
        self._waiting.pop(key, None)
        for running in self._texts:
            running.over |= running.key == key
        self._leave()

    @translate_device_failure()
    @torch.inference_mode()
    def step(self) -> list[tuple[Hashable, TextDelta | TureenError]]:
        """Admit waiting jobs, and sample one token of every running text.

        Returns:
            A delta or an error of each text, with its key.

        Raises:
            Unavailable: the accelerator has failed permanently.
        """
        logits = [self._advance()] if self._texts else []
        joining = self._admit()
        found, failed = self._join(joining) if joining else ([], [])
        said = self._draw(torch.cat([*logits, *found])) if logits or found else []
        self._leave()
        return [*said, *failed]

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
        self._texts, self._waiting = [], {}
        del self._rows, self._model, self._gate

    # ----------------------------------------------------------------------- joining and leaving

    def _advance(self) -> Tensor:
        """Run the last token of every running text, and return the logits of the next tokens."""
        self._gate.set_rows([running.mixture for running in self._texts])
        return self._rows.advance([running.last for running in self._texts])

    def _admit(self) -> list[RunningText]:
        """Take waiting jobs, in order, as long as the batch stays within its limits and memory did not run out."""
        joining: list[RunningText] = []
        if not self._texts:
            self._room = self._limits.rows
        for key, job in list(self._waiting.items()):
            if (self._texts or joining) and not self._fits(joining, job):
                break
            del self._waiting[key]
            sampler = Sampler(job.sampling, self._model.device)
            joining.append(RunningText(key, job, sampler, TextStream(self._backend, job.sampling.stop, job.ids)))
        return joining

    def _fits(self, joining: Sequence[RunningText], job: GenerationJob) -> bool:
        """Tell whether a job may join too. The first to join in a step may have a prompt of any length."""
        jobs = [running.job for running in (*self._texts, *joining)] + [job]
        prompts = [len(running.job.ids) for running in joining] + [len(job.ids)]
        longest = max(len(each.ids) + each.sampling.max_tokens for each in jobs)
        quick = len(prompts) == 1 or len(prompts) * max(prompts) <= self._limits.prefill_tokens
        return quick and len(jobs) <= self._room and len(jobs) * longest <= self._limits.cache_tokens

    def _join(self, joining: Sequence[RunningText]) -> tuple[list[Tensor], list[tuple[Hashable, TureenError]]]:
        """Run the prompts of new texts. Returns the first logits of those that run, and the errors of the others.

        A prompt for which there is no memory beside the running texts waits until one of these has ended.
        """
        logits: list[Tensor] = []
        failed: list[tuple[Hashable, TureenError]] = []
        back: dict[Hashable, GenerationJob] = {}
        for part, found in run_halved(joining, self._prefill, self._is_fatal):
            if isinstance(found, Exception) and self._texts and is_out_of_memory(found):
                self._room = len(self._texts)
                back[part[0].key] = part[0].job
            elif isinstance(found, Exception):
                failed.append((part[0].key, _blame(found)))
            else:
                self._texts += part
                logits.append(found)
        self._waiting = back | self._waiting
        return logits, failed

    def _is_fatal(self, error: Exception) -> bool:
        """Whether an error hurts all texts: the accelerator has failed, or the cache of the running texts is torn."""
        return isinstance(error, torch.AcceleratorError) or self._rows.torn

    def _prefill(self, joining: Sequence[RunningText]) -> Tensor:
        """Run the prompts of new texts, and return their first logits. Equal prompts under equal gates run once."""
        prompts: dict[tuple[tuple[int, ...], Mixture], int] = {}
        owners = [prompts.setdefault((running.job.ids, running.mixture), len(prompts)) for running in joining]
        self._gate.set_rows([mixture for _, mixture in prompts])
        return self._rows.prefill([ids for ids, _ in prompts], owners)

    def _leave(self) -> None:
        """Remove the texts that are over from the batch."""
        stay = [index for index, running in enumerate(self._texts) if not running.over]
        self._rows.keep(stay)
        self._texts = [self._texts[index] for index in stay]

    # ----------------------------------------------------------------------- drawing

    def _draw(self, logits: Tensor) -> list[tuple[Hashable, TextDelta | TureenError]]:
        """Sample a token of every text from its logits. A text whose logits are not finite ends with an error."""
        finite = logits.isfinite().all(1).tolist()
        safe = logits if all(finite) else logits.nan_to_num()
        tokens = torch.cat([running.sampler.draw(row) for running, row in zip(self._texts, safe, strict=True)]).tolist()
        said: list[tuple[Hashable, TextDelta | TureenError]] = []
        for running, row, token, sound in zip(self._texts, safe, tokens, finite, strict=True):
            said.append((running.key, self._make_delta(running, token, row) if sound else _fail(running)))
        return said

    def _make_delta(self, running: RunningText, token: int, logits: Tensor) -> TextDelta:
        running.tokens, running.last = running.tokens + 1, token
        finish: Finish | None = None
        if token in self._ends:
            text, finish = running.text.close(), "stop"
        else:
            running.sampler.note(token)
            text = running.text.push(token)
            if running.text.stopped:
                finish = "stop"
            elif running.tokens == running.job.sampling.max_tokens:
                text, finish = text + running.text.close(), "length"
        running.over = finish is not None
        return TextDelta(text, 1, self._logprobs(running.job.sampling.logprobs, token, logits), finish)

    def _logprobs(self, alternatives: int | None, token: int, logits: Tensor) -> tuple[TokenLogprob, ...]:
        """Compute the log-probabilities to report, before penalties, bias, temperature and nucleus."""
        if alternatives is None:
            return ()
        logprobs = logits.log_softmax(-1)
        values, ids = (each.tolist() for each in logprobs.topk(alternatives))
        top = tuple((self._name(other), other, value) for other, value in zip(ids, values, strict=True))
        return (TokenLogprob(self._name(token), token, float(logprobs[token]), top),)

    def _name(self, token: int) -> str:
        if token not in self._names:
            self._names[token] = self._backend.decode([token], skip_special_tokens=False)
        return self._names[token]


def _blame(error: Exception) -> TureenError:
    """Make the error of a text whose prompt alone could not be run."""
    if is_out_of_memory(error):
        return make_memory_error()
    return ServerFault(f"the model failed on this text ({type(error).__name__})", code="runtime_failed")


def _fail(running: RunningText) -> TureenError:
    running.over = True
    return ServerFault("the model computed logits that are not finite", code="non_finite_logits")
