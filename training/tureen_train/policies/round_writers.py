"""Open the policy of a round to write its answers, and to read how far it is from its reference."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState

from tureen_core.lora import Adapter
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, Sampling
from tureen_train.networks.adapter_start import load_adapter
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.encoding import EncodedAnswer, encode_prompt
from tureen_train.policies.method import Task
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.reference import Reference, make_reference
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.rounds import Write, Written, sum_logprobs
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.rollouts.server_sampler import ServerSampler
from tureen_train.policies.rollouts.vllm_sampler import VllmSampler
from tureen_train.policies.token_logprobs import collate_answers, compute_token_logprobs

# how many times `sampling.batch` answers are asked for in one call: engines that batch by themselves want many
CALLS = {"process": 1, "server": 4, "vllm": 32}


@dataclass(frozen=True)
class Weights:
    """Where the weights of a policy are on disk.

    Attributes:
        base: a folder with whole weights.
        adapter: a PEFT folder, or an artifact, with a LoRA over them; or None.
    """

    base: Path
    adapter: Path | None = None


def find_origin(task: Task) -> Weights:
    """Find the weights that a run starts from."""
    start = task.run.model.start
    return Weights(task.base, None if start is None else Path(start).expanduser())


class Writer(Protocol):
    """Writes the answers of a round."""

    def write(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        """Write the answers to some prompts."""

    def close(self) -> None:
        """Free the memory."""


def open_writer(
    run: ExpertRun, weights: Weights, origin: Weights, renderer: Renderer, sampling: Sampling, seed: int
) -> Writer:
    """Open what writes a round's answers.

    Args:
        weights: of the policy. A server has its own.
        origin: of the reference.
        sampling: the recipe's, with the engine and the number of answers that are wanted.
        seed: of the round.

    Raises:
        RecipeError: the weights do not fit the recipe, or the engine cannot be used.
    """
    if sampling.engine == "server":
        return ServerWriter(sampling, seed)
    if sampling.engine == "vllm":
        return VllmWriter(run, weights, renderer, sampling, seed)
    return ProcessWriter(run, weights, origin, renderer, sampling, seed)


def count_prompts_at_once(sampling: Sampling) -> int:
    """The number of prompts that a writer is given in one call."""
    return max(1, CALLS[sampling.engine] * sampling.batch // sampling.count)


def name_start(run: ExpertRun, weights: Weights) -> ExpertRun:
    """A recipe that starts from these weights."""
    start = None if weights.adapter is None else str(weights.adapter)
    return run.model_copy(update={"model": run.model.model_copy(update={"start": start})})


class ProcessWriter:
    """Writes answers in this process, and reads the first one to each prompt under the policy and the reference.

    That is enough to estimate the KL divergence of a round, and costs less than to read all. Where the policy is its
    own reference, the two are equal, and nothing is read.
    """

    def __init__(
        self, run: ExpertRun, weights: Weights, origin: Weights, renderer: Renderer, sampling: Sampling, seed: int
    ) -> None:
        self._run, self._renderer, self._sampling, self._seed = run, renderer, sampling, seed
        first = _open_adapter(run, origin)
        device = PartialState().device
        self._model = open_policy(name_start(run, origin), weights.base, first)
        self._reference: Reference | None = None
        if weights != origin:
            self._reference = make_reference(run, origin.base, self._model, first)
            if isinstance(self._reference, torch.nn.Module):
                self._reference.to(device).eval()
            own = _open_adapter(run, weights)
            if own is not None:
                load_adapter(self._model, own)
        self._model.to(device).eval()
        self._sampler = ProcessSampler(self._model, renderer)

    @torch.no_grad()
    def write(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        """See :class:`Writer`."""
        with self._autocast():
            samples = self._sampler.sample(prompts, self._sampling, self._seed, ignore_progress)
            if self._reference is None:
                return [[_write_alike(each) for each in own] for own in samples]
            texts = [
                EncodedAnswer((*head, *own[0].ids), len(head))
                for head, own in zip(map(self._encode, prompts), samples, strict=True)
            ]
            groups = list(range(len(texts)))
            mine = self._read(self._model, texts, groups)
            if isinstance(self._reference, torch.nn.Module):
                theirs = self._read(self._reference, texts, groups)
            else:
                with self._reference():
                    theirs = self._read(self._model, texts, groups)
        return [
            [Written(own[0], *read), *(Written(each, None) for each in own[1:])]
            for own, read in zip(samples, zip(mine, theirs, strict=True), strict=True)
        ]

    def close(self) -> None:
        """See :class:`Writer`."""
        del self._sampler, self._model, self._reference
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _autocast(self) -> AbstractContextManager[Any]:
        half = self._run.model.precision == "bf16"
        return torch.autocast(PartialState().device.type, torch.bfloat16, enabled=half)

    def _encode(self, prompt: Prompt) -> list[int]:
        return encode_prompt(self._renderer, prompt.messages, prompt.template_arguments)

    def _read(self, model: Any, texts: Sequence[EncodedAnswer], groups: Sequence[int]) -> list[float]:
        """Log-probabilities of whole answers, in nats."""
        batch = collate_answers(texts, groups, self._renderer.tokenizer.pad_token_id)
        sums: list[float] = compute_token_logprobs(model, batch).logprobs.double().sum(1).tolist()
        return sums


def make_policy_writer(
    policy: Any, renderer: Renderer, sampling: Sampling, seed: int, autocast: Callable[[], AbstractContextManager[Any]]
) -> Write:
    """Make what writes answers by a policy that is in training, as it is when it is asked.

    Args:
        policy: the causal model; whole, see :class:`tureen_train.policies.rollouts.sampler.ProcessSampler`.
        autocast: opens the precision of training.
    """
    sampler = ProcessSampler(policy, renderer)

    def write(prompts: Sequence[Prompt]) -> list[list[Written]]:
        with autocast():
            samples = sampler.sample(prompts, sampling, seed, ignore_progress)
        return [[Written(each) for each in own] for own in samples]

    return write


class ServerWriter:
    """Writes answers by a server. Nothing is known of their log-probabilities."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        assert sampling.url is not None  # the recipe checks it
        self._sampler = ServerSampler(sampling.url, sampling.model, sampling.preferences)
        self._sampling, self._seed = sampling, seed

    def write(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        """See :class:`Writer`."""
        return _write_by(self._sampler.sample, prompts, self._sampling, self._seed)

    def close(self) -> None:
        """See :class:`Writer`."""


class VllmWriter:
    """Writes answers by vLLM. Nothing is known of their log-probabilities under the reference."""

    def __init__(self, run: ExpertRun, weights: Weights, renderer: Renderer, sampling: Sampling, seed: int) -> None:
        rank = 0 if run.model.lora is None else run.model.lora.rank
        half = run.model.precision == "bf16"
        self._sampler = VllmSampler(weights.base, weights.adapter, rank, renderer, sampling, half)
        self._sampling, self._seed = sampling, seed

    def write(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        """See :class:`Writer`."""
        return _write_by(self._sampler.sample, prompts, self._sampling, self._seed)

    def close(self) -> None:
        """See :class:`Writer`."""
        self._sampler.close()


def _open_adapter(run: ExpertRun, weights: Weights) -> Adapter | None:
    return open_start(name_start(run, weights), weights.base)


def _write_by(
    sample: Callable[..., list[list[Sample]]], prompts: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[list[Written]]:
    found = sample(prompts, sampling, seed, ignore_progress)
    return [[Written(each, sum_logprobs(each)) for each in own] for own in found]


def _write_alike(sample: Sample) -> Written:
    logprob = sum_logprobs(sample)
    return Written(sample, logprob, logprob)
