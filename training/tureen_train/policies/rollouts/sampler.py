"""Write a policy's answers in this process, by transformers' ``generate``, with any weights of a causal model.

The prompts are padded on the left and sorted by length. Each is computed once for all its answers in a batch: their
rows begin with copies of its keys and values.

An answer depends on the weights, its prompt, the seed, the prompt's id and the answer's number. What else is in the
batch changes only the rounding of its logits, by about 1e-6 in float32. A token is another one only if the draw falls
into that difference. In bfloat16 the rounding is coarser, so a batch of other rows gives some other answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig

from tureen_core.grouped_attention import grouped_queries
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, Sampling
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.draws import TokenDrawer, make_uniforms


@dataclass(frozen=True)
class Work:
    """Answers to one prompt that are written in one batch: ``count`` of them, numbered from ``first``."""

    prompt: Prompt
    ids: tuple[int, ...]
    first: int
    count: int


class ProcessSampler:
    """Writes answers with a model of this process.

    It may be a policy in training: dropout is off while answers are written, and every module's mode is restored after.
    Under ``model.disable_adapter()`` the answers are those of the base. No state of PyTorch's random generators
    is used. Weights that ZeRO-3 has sharded must be gathered, see
    :func:`tureen_train.networks.sharded.gather_for_generation`.

    Args:
        model: a Hugging Face causal model, or a PEFT model on one.
        renderer: makes the prompts' ids.

    Attributes:
        ends: the ids of end tokens: the model's, the tokenizer's, and the one by which the template ends an answer.
    """

    def __init__(self, model: Any, renderer: Renderer) -> None:
        self._model = model.get_base_model() if isinstance(model, PeftModel) else model
        self._renderer = renderer
        self.ends = find_end_tokens(self._model.generation_config.eos_token_id, renderer)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, done: Done) -> list[list[Sample]]:
        """Write ``sampling.count`` answers to each prompt. See the contract.

        Raises:
            RecipeError: the longest prompt with ``sampling.max_tokens`` is longer than the model's context.
            FloatingPointError: the model computed logits that are not finite.
        """
        ids = [tuple(encode_prompt(self._renderer, prompt.messages, prompt.template_arguments)) for prompt in prompts]
        self._check_lengths(ids, sampling)
        found: dict[str, list[Sample]] = {prompt.id: [] for prompt in prompts}
        with freeze_modes(self._model), plain_generation(self._model), grouped_queries(self._model):
            for batch in plan_batches(prompts, ids, sampling):
                samples = self._write(batch, sampling, seed)
                for sample in samples:
                    found[sample.prompt].append(sample)
                done(len(samples))
        return [found[prompt.id] for prompt in prompts]

    def _check_lengths(self, ids: Sequence[Sequence[int]], sampling: Sampling) -> None:
        context = self._model.config.to_dict().get("max_position_embeddings")
        longest = max(map(len, ids), default=0)
        if context is not None and longest + sampling.max_tokens > context:
            raise RecipeError(
                f"sampling.max_tokens: a prompt of {longest} tokens and an answer of {sampling.max_tokens} are longer "
                f"than the model's context of {context}; lower it, or sampling.max_prompt"
            )

    @torch.no_grad()
    def _write(self, batch: Sequence[Work], sampling: Sampling, seed: int) -> list[Sample]:
        """Write the answers of one batch."""
        ids, mask = self._pad([each.ids for each in batch])
        owners = torch.tensor([row for row, each in enumerate(batch) for _ in range(each.count)], device=ids.device)
        places = [(each.prompt.id, each.first + offset) for each in batch for offset in range(each.count)]
        uniforms = torch.stack([make_uniforms(seed, *place, sampling.max_tokens) for place in places])
        drawer = TokenDrawer(sampling, uniforms.to(ids.device), self.ends, len(self._renderer.tokenizer))
        rows = self._model.generate(
            input_ids=ids[owners],
            attention_mask=mask[owners],
            past_key_values=self._compute_prompts(ids, mask, owners),
            logits_processor=[drawer],
            do_sample=False,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self.ends,
            pad_token_id=self._renderer.tokenizer.pad_token_id,
            synced_gpus=False,  # each rank writes other answers, of other lengths
        )
        answers = rows[:, ids.shape[1] :].tolist()
        logprobs = torch.stack(drawer.logprobs, 1).tolist()
        return [
            make_sample(*each, self.ends, self._renderer.tokenizer)
            for each in zip(places, answers, logprobs, strict=True)
        ]

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Pad prompts on the left: ids and mask ``[B, T]``."""
        width = max(map(len, rows))
        pad = self._renderer.tokenizer.pad_token_id
        ids = [[pad] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self._model.device), torch.tensor(mask, device=self._model.device)

    def _compute_prompts(self, ids: Tensor, mask: Tensor, owners: Tensor) -> DynamicCache | None:
        """Compute all tokens of the prompts but the last, once, and copy their keys and values to the answers' rows.

        Returns:
            None where there is nothing to share: the prompts have one token, or the model keeps recurrent states.
        """
        cache = DynamicCache(config=self._model.config)
        if ids.shape[1] < 2 or any(cache.is_linear):
            return None
        mask = mask[:, :-1]
        self._model(
            input_ids=ids[:, :-1],
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_select_indices(owners)
        return cache


def make_sample(
    place: tuple[str, int], ids: Sequence[int], logprobs: Sequence[float], ends: Sequence[int], tokenizer: Any
) -> Sample:
    """Make a sample of the ids that were written.

    Args:
        place: the prompt's id and the answer's number.
        ids: those after the first end token are padding.
        ends: the ids of end tokens.
    """
    end = next((at for at, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[: end + 1]
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Sample(*place, text, tuple(kept), end is not None, tuple(logprobs[: len(kept)]))


def find_end_tokens(configured: int | list[int] | None, renderer: Renderer) -> list[int]:
    """Find the ids that end an answer: the model's, the tokenizer's, and the mark with which the template ends one.

    Args:
        configured: ``eos_token_id`` in the model's settings of generation.
    """
    tokenizer = renderer.tokenizer
    ends = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    mark = next((mark for mark in sorted(renderer.frame.end_marks) if renderer.frame.closing.startswith(mark)), None)
    if mark is not None:
        ends.add(tokenizer.convert_tokens_to_ids(mark))
    return sorted(each for each in ends if each is not None)


def plan_batches(prompts: Sequence[Prompt], ids: Sequence[tuple[int, ...]], sampling: Sampling) -> list[list[Work]]:
    """Divide the answers among batches of at most ``sampling.batch``, the longest prompts first.

    All answers to a prompt stand in one batch, unless there are more than a batch holds.
    """
    order = sorted(range(len(prompts)), key=lambda at: (-len(ids[at]), at))
    batches: list[list[Work]] = []
    room = 0
    for at in order:
        for first in range(0, sampling.count, sampling.batch):
            work = Work(prompts[at], ids[at], first, min(sampling.batch, sampling.count - first))
            if work.count > room:
                batches.append([])
                room = sampling.batch
            batches[-1].append(work)
            room -= work.count
    return batches


@contextmanager
def freeze_modes(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and each module back into its own mode after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Set aside the model's own settings of generation, such as a penalty for repetition.

    ``generate`` would add them to those that it is given, and the answers would not be the policy's.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
