"""Text from a transformers model, step by step: every step draws one token of every running text.

Texts join and leave at step borders, each with its own gate, sampling and random generator, so that what a text
becomes does not depend on its neighbours. No threads and no clock: the lane calls ``step``.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen.errors import ServerFault, TureenError
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import Finish, GenerationJob, TextDelta, TokenLogprob, Weights
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.on_transformers.accelerator import translate_device_failure
from tureen_serve.runtimes.on_transformers.cache_rows import CacheRows
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture, RankGate
from tureen_serve.runtimes.on_transformers.sampling import Sampler
from tureen_serve.runtimes.text_stream import TextStream


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What may run at once. ``cache_tokens`` counts rows times the longest text they can become."""

    rows: int = 32
    cache_tokens: int = 65536
    prefill_tokens: int = 8192


@dataclass(slots=True)
class RunningText:
    """One running text."""

    key: Hashable
    job: GenerationJob
    sampler: Sampler
    text: TextStream
    tokens: int = 0
    last: int = 0
    over: bool = False

    @property
    def mixture(self) -> Mixture:
        """What its row of the gate says."""
        return self.job.weights, self.job.semantics


class TransformersStepper:
    """Continuous batching of one policy family.

    Args:
        model: a Hugging Face causal model with the experts attached.
        gate: the model's.
        tokenizer: a fast tokenizer, for the text.
        limits: what may run at once; more jobs wait in order.

    Raises:
        ValueError: the model keeps more than keys and values, or the tokenizer is not a fast one.
    """

    failure = None
    description = "one batch, a token a step"

    def __init__(self, model: Any, gate: RankGate, tokenizer: Any, limits: StepLimits) -> None:
        if any(DynamicCache(config=model.config).is_linear):
            raise ValueError(
                f"{type(model).__name__} keeps recurrent states, which cannot be batched step by step here"
            )
        if not tokenizer.is_fast:
            raise ValueError("streaming needs a fast tokenizer (a tokenizer.json)")
        self.context: int = model.config.max_position_embeddings
        self._vocabulary: int = model.config.vocab_size
        self._model = model.eval()
        self._gate = gate
        self._backend = tokenizer.backend_tokenizer
        self._ends = _ends(model.generation_config.eos_token_id, tokenizer.eos_token_id)
        self._limits = limits
        self._rows = CacheRows(model)
        self._lines: list[RunningText] = []
        self._waiting: dict[Hashable, GenerationJob] = {}
        self._names: dict[int, str] = {}

    @property
    def active(self) -> bool:
        """Whether a step would do something."""
        return bool(self._lines or self._waiting)

    @property
    def running(self) -> int:
        """Texts in the batch."""
        return len(self._lines)

    @property
    def waiting(self) -> int:
        """Jobs that found no room yet."""
        return len(self._waiting)

    def check(self, job: GenerationJob) -> None:
        """Refuse a job that cannot run; see :func:`~tureen_serve.runtimes.jobs.check_job`."""
        check_job(job, self.context, self._vocabulary)

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Queue a job that :meth:`check` lets pass."""
        self._waiting[key] = job

    def drop(self, key: Hashable) -> None:
        """Forget a job, waiting or running."""
        self._waiting.pop(key, None)
        for line in self._lines:
            line.over |= line.key == key
        self._leave()

    @translate_device_failure()
    @torch.inference_mode()
    def step(self) -> list[tuple[Hashable, TextDelta | TureenError]]:
        """Draw one token of every running text, and of those that found room just now.

        Raises:
            Unavailable: the accelerator has failed for good.
        """
        logits = [self._advance()] if self._lines else []
        joining = self._admit()
        if joining:
            logits.append(self._prefill(joining))
            self._lines += joining
        said = self._draw(torch.cat(logits)) if logits else []
        self._leave()
        return said

    @torch.inference_mode()
    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        """Log-probability in nats of each of ``ids[start:]`` given all that stands before it."""
        self._gate.set_rows([(weights, semantics)])
        tokens = torch.tensor([ids], device=self._model.device)
        kept = len(ids) - start + 1
        logits = self._model(input_ids=tokens, use_cache=False, logits_to_keep=kept).logits[0, :-1].float()
        chosen: list[float] = logits.log_softmax(-1).gather(1, tokens[0, start:, None]).flatten().tolist()
        return chosen

    def close(self) -> None:
        """Forget all jobs and free the weights."""
        self._lines, self._waiting = [], {}
        del self._rows, self._model, self._gate

    # ----------------------------------------------------------------------- in and out

    def _advance(self) -> Tensor:
        self._gate.set_rows([line.mixture for line in self._lines])
        return self._rows.advance([line.last for line in self._lines])

    def _admit(self) -> list[RunningText]:
        """Take waiting jobs, in order, while there is room."""
        joining: list[RunningText] = []
        for key, job in list(self._waiting.items()):
            if (self._lines or joining) and not self._fits(joining, job):
                break
            del self._waiting[key]
            sampler = Sampler(job.sampling, self._model.device)
            joining.append(RunningText(key, job, sampler, TextStream(self._backend, job.sampling.stop, job.ids)))
        return joining

    def _fits(self, joining: Sequence[RunningText], job: GenerationJob) -> bool:
        """Whether one more job stays within the room; the first to join in a step may have a prompt of any length."""
        jobs = [line.job for line in (*self._lines, *joining)] + [job]
        prompts = [len(line.job.ids) for line in joining] + [len(job.ids)]
        longest = max(len(each.ids) + each.sampling.max_tokens for each in jobs)
        quick = len(prompts) == 1 or len(prompts) * max(prompts) <= self._limits.prefill_tokens
        return quick and len(jobs) <= self._limits.rows and len(jobs) * longest <= self._limits.cache_tokens

    def _prefill(self, joining: Sequence[RunningText]) -> Tensor:
        """First logits of new texts; equal prompts under equal gates (n answers, a sweep's repeats) run once."""
        prompts: dict[tuple[tuple[int, ...], Mixture], int] = {}
        owners = [prompts.setdefault((line.job.ids, line.mixture), len(prompts)) for line in joining]
        self._gate.set_rows([mixture for _, mixture in prompts])
        return self._rows.prefill([ids for ids, _ in prompts], owners)

    def _leave(self) -> None:
        stay = [index for index, line in enumerate(self._lines) if not line.over]
        self._rows.keep(stay)
        self._lines = [self._lines[index] for index in stay]

    # ----------------------------------------------------------------------- drawing

    def _draw(self, logits: Tensor) -> list[tuple[Hashable, TextDelta | TureenError]]:
        finite = logits.isfinite().all(1).tolist()
        safe = logits if all(finite) else logits.nan_to_num()
        tokens = torch.cat([line.sampler.draw(row) for line, row in zip(self._lines, safe, strict=True)]).tolist()
        said: list[tuple[Hashable, TextDelta | TureenError]] = []
        for line, row, token, sound in zip(self._lines, safe, tokens, finite, strict=True):
            said.append((line.key, self._say(line, token, row) if sound else _failed(line)))
        return said

    def _say(self, line: RunningText, token: int, logits: Tensor) -> TextDelta:
        line.tokens, line.last = line.tokens + 1, token
        finish: Finish | None = None
        if token in self._ends:
            text, finish = line.text.close(), "stop"
        else:
            line.sampler.note(token)
            text = line.text.push(token)
            if line.text.stopped:
                finish = "stop"
            elif line.tokens == line.job.sampling.max_tokens:
                text, finish = text + line.text.close(), "length"
        line.over = finish is not None
        return TextDelta(text, 1, self._logprobs(line.job.sampling.logprobs, token, logits), finish)

    def _logprobs(self, alternatives: int | None, token: int, logits: Tensor) -> tuple[TokenLogprob, ...]:
        """Of the raw distribution: before penalties, bias, temperature and nucleus."""
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


def _ends(configured: int | list[int] | None, fallback: int | None) -> frozenset[int]:
    """Every id that ends a text."""
    if isinstance(configured, list):
        return frozenset(configured)
    end = fallback if configured is None else configured
    return frozenset() if end is None else frozenset({end})


def _failed(line: RunningText) -> TureenError:
    line.over = True
    return ServerFault("the model gave logits that are not finite", code="non_finite_logits")
