"""TRL's trainers of groups with two parts of our own: our sampler writes the answers, and the texts run packed.

TRL computes a prompt anew for each of its answers, in padded rows, and puts all tokens through the LM head. Here a
prompt is computed once for all of its answers that run together, without padding, and only the answers' tokens go
through the head. The log-probabilities are the same to 1e-5 in float32. All else is TRL's: rewards, advantages, losses.

The two methods that are replaced are no public ones of TRL, so its version is bound in ``pyproject.toml``.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer, RLOOTrainer

from tureen_core.template import Renderer
from tureen_train.config import Packed, Sampling
from tureen_train.networks.answer_batch import AnswerBatch
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.networks.sharded import gather_for_generation
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.token_logprobs import collate_answers, compute_token_logprobs
from tureen_train.settings import read_rank


@dataclass(frozen=True)
class GroupParts:
    """Our parts of a trainer of groups.

    Attributes:
        renderer: makes the prompts' ids.
        prompts: all prompts of the run by their ids.
        sampling: how answers are written; ``engine: vllm`` leaves that to TRL.
        layout: how texts run; ``off`` leaves that to TRL. Otherwise the model has packed attention, see
            :func:`tureen_train.networks.packing.switch_to_packed`.
        sharded: whether the weights are ZeRO-3's.
    """

    renderer: Renderer
    prompts: Mapping[str, Prompt]
    sampling: Sampling
    layout: Packed
    sharded: bool = False


class _OwnParts:
    """What both methods replace of TRL's trainers. The rows of their data have an ``id``, the prompt's.

    Attributes:
        parts: ours; set after TRL's constructor.
        asked: the ids of the prompts that the next answers are for.
    """

    parts: GroupParts
    asked: Sequence[str]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.asked = [row["id"] for row in inputs]
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def _get_per_token_logps_and_entropies(self, model: Any, *given: Any, **more: Any) -> Any:
        padded = runs_padded(self, model, more)
        read = super()._get_per_token_logps_and_entropies if padded else read_packed(self)  # type: ignore[misc]
        return read(model, *given, **more)


class PackedGrpoTrainer(_OwnParts, GRPOTrainer):
    """TRL's GRPO with our parts."""

    def _generate_single_turn(self, *given: Any, **more: Any) -> Any:
        return super()._generate_single_turn(*given, **more) if self.use_vllm else (write_answers(self), None)


class PackedRlooTrainer(_OwnParts, RLOOTrainer):
    """TRL's RLOO with our parts."""

    def _generate_single_turn(self, *given: Any, **more: Any) -> Any:
        return super()._generate_single_turn(*given, **more) if self.use_vllm else write_answers(self)


def write_answers(trainer: Any) -> list[list[int]]:
    """Write the answers that TRL asks for: their ids, in the order of its rows."""
    parts: GroupParts = trainer.parts
    count = parts.sampling.count
    prompts = tell_apart([parts.prompts[name] for name in trainer.asked[::count]])
    model, seed = (
        trainer.accelerator.unwrap_model(trainer.model_wrapped),
        draw_step_seed(trainer.args.seed, trainer.state),
    )
    with gather_for_generation(trainer.model_wrapped, model, parts.sharded), trainer.accelerator.autocast():
        found = ProcessSampler(model, parts.renderer).sample(prompts, parts.sampling, seed, ignore_progress)
    return [list(sample.ids) for samples in found for sample in samples]


def runs_padded(trainer: Any, model: Any, asked: Mapping[str, Any]) -> bool:
    """Whether TRL reads log-probabilities by its own method: also of its reference, which is no class of ours."""
    return trainer.parts.layout == "off" or bool(asked.get("compute_aux_loss")) or model is trainer.ref_model


def read_packed(trainer: Any) -> Callable[..., tuple[Tensor, Tensor | None, None]]:
    """Make a function in place of TRL's method that reads log-probabilities, with its arguments and results.

    It returns log-probabilities and, where asked for, entropies ``[B, logits_to_keep]``; 0 on padding.
    """

    def read(
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        logprobs, entropies = [], []
        size = batch_size or len(input_ids)
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            batch = pack_completions(ids, mask, logits_to_keep, trainer.parts)
            with trainer.accelerator.autocast():
                found = compute_token_logprobs(model, batch, trainer.temperature, compute_entropy)
            wider = (0, logits_to_keep - found.logprobs.shape[1])
            logprobs.append(pad(found.logprobs, wider))
            entropies += [] if found.entropies is None else [pad(found.entropies, wider)]
        return torch.cat(logprobs), torch.cat(entropies) if entropies else None, None

    return read


def pack_completions(ids: Tensor, mask: Tensor, width: int, parts: GroupParts) -> AnswerBatch:
    """Pack TRL's rows of prompts, padded on the left, and answers, padded on the right.

    Args:
        ids: ``[B, T]``.
        mask: ``[B, T]``, 1 on tokens.
        width: of the answers, the last columns.
    """
    present, starts = mask.bool(), mask[:, : mask.shape[1] - width].sum(1).tolist()
    texts = [
        EncodedAnswer(tuple(row[own].tolist()), start) for row, own, start in zip(ids, present, starts, strict=True)
    ]
    heads = [text.ids[: text.start] for text in texts]
    return collate_answers(
        texts, [heads.index(head) for head in heads], parts.renderer.tokenizer.pad_token_id, parts.layout
    )


def tell_apart(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Give a prompt that occurs again another id, so that its answers are drawn anew."""
    seen: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        seen[prompt.id] += 1
        again = seen[prompt.id] - 1
        found.append(replace(prompt, id=f"{prompt.id} again {again}") if again else prompt)
    return found


def draw_step_seed(seed: int, state: Any) -> int:
    """Draw the seed of a step in this process, so that a resumed run writes the answers of an unbroken one.

    Args:
        seed: the run's.
        state: of the trainer.
    """
    place = f"{seed}:{state.global_step}:{read_rank()}".encode()
    return int.from_bytes(hashlib.sha256(place).digest()[:4], "big")
