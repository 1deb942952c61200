"""Runs and trains the policy and its critic on all ranks, by accelerate or DeepSpeed."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from transformers.trainer_pt_utils import get_parameter_names

from tureen_train.config import ExpertRun, Packed, PpoPolicy
from tureen_train.networks.answer_batch import AnswerBatch
from tureen_train.networks.sharded import gather_for_generation
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.actor_critic import ActorCritic, Figures, Role
from tureen_train.policies.ppo.losses import Clips, Tokens, Watched, is_usable, sum_losses
from tureen_train.policies.ppo.plan import Share, Update
from tureen_train.policies.token_logprobs import collate_answers

UNDECAYED = (r"bias", r"shift", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")


class Learnt(NamedTuple):
    """What became of an update.

    Attributes:
        watched: the sums over all micro-batches that were learnt from, on all ranks; ``[8]`` as in :class:`Watched`.
        skipped: the micro-batches that were not.
        changed: whether the weights were changed; not if nothing was left, or the gradient was no finite number.
        norm: the norm of the gradient before it was clipped.
    """

    watched: Tensor
    skipped: int
    changed: bool
    norm: float


class PpoLearner:
    """The policy and its critic on all ranks. Every rank must call the same methods with the same texts.

    Args:
        model: not yet on its device.
        run: its optimiser's settings are used.
        layout: how the texts of a batch run, see :func:`tureen_train.networks.answer_batch.lay_out_answers`.
        pad: the id of padding.

    Attributes:
        engine: the model as accelerate wraps it.
    """

    def __init__(self, accelerator: Accelerator, model: ActorCritic, run: ExpertRun, layout: Packed, pad: int) -> None:
        self.accelerator, self.model = accelerator, model
        self.layout, self.pad = layout, pad
        self.most_norm, self.sharded = run.optimisation.max_grad_norm, run.scale.zero == 3
        groups = make_groups(model, run)
        self.rates = [group["lr"] for group in groups]
        self.engine, self.optimiser = accelerator.prepare(model, torch.optim.AdamW(groups))

    @property
    def policy(self) -> Any:
        """The policy, bare or wrapped by PEFT."""
        return self.model.policy

    def whole_policy(self) -> AbstractContextManager[None]:
        """Let each rank run the policy by itself while the block runs, as for writing answers."""
        return gather_for_generation(self.engine, self.policy, self.sharded)

    def autocast(self) -> AbstractContextManager[None]:
        """Run models in the precision of training while the block runs."""
        context: AbstractContextManager[None] = self.accelerator.autocast()
        return context

    @torch.no_grad()
    def read(self, texts: Sequence[EncodedAnswer], shares: Sequence[Sequence[Share]], role: Role) -> Figures:
        """Compute the figures of all texts, ``[M, T]`` each on the CPU and 0 on padding.

        Args:
            shares: the micro-batches, each with the texts of every rank, see :class:`.plan.Update`.
        """
        self.engine.eval()
        width = max(len(text.answer) for text in texts)
        tables = torch.zeros(len(Figures._fields), len(texts), width, device=self.accelerator.device)
        for micro_batch in shares:
            share = micro_batch[self.accelerator.process_index]
            batch = self._lay_out(texts, share)
            found = self.engine(answers=batch, role=role)
            if share:
                rows, columns = _find_cells(share, batch.lengths)
                tables[:, rows, columns] = torch.stack(list(found)).float()
        return Figures(*self.accelerator.reduce(tables, "sum").cpu())

    def learn(
        self, texts: Sequence[EncodedAnswer], update: Update, known: Tokens, clips: Clips, limit: float
    ) -> Learnt:
        """Learn from the texts of an update. The loss is the mean over all of their tokens on all ranks.

        A micro-batch with sums that are not finite, or a mean ratio above ``limit``, is left out on all ranks.

        Args:
            known: ``[M, T]`` each, of all texts.
        """
        self.engine.train()
        tokens = sum(len(texts[text].answer) for text in update.texts)
        total = torch.zeros(len(Watched._fields))
        used = 0
        for number, micro_batch in enumerate(update.micro_batches):
            last = number + 1 == len(update.micro_batches)
            share = micro_batch[self.accelerator.process_index]
            with nullcontext() if last else self.accelerator.no_sync(self.engine):
                loss, own, outputs = self._compute_loss(texts, share, known, clips)
                watched = self.accelerator.reduce(own, "sum").cpu()
                usable = is_usable(Watched(*watched), limit)
                if usable:
                    total, used = total + watched, used + 1
                    # the ranks' gradients are averaged, but their sum is wanted
                    self._add_gradient(loss / tokens * self.accelerator.num_processes, last)
                elif last and used:
                    self._add_gradient(outputs * 0, last)  # the ranks join their gradients in the last backward pass
        changed, norm = self._step() if used else (False, 0.0)
        return Learnt(total, len(update.micro_batches) - used, changed, norm)

    def _compute_loss(
        self, texts: Sequence[EncodedAnswer], share: Share, known: Tokens, clips: Clips
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss and the sums of a rank's share, and the sum of the model's outputs."""
        batch = self._lay_out(texts, share)
        found = self.engine(answers=batch, role="learner")
        outputs = found.logprobs.sum() + found.values.sum()
        if not share:
            return outputs * 0, torch.zeros(len(Watched._fields), device=outputs.device), outputs
        cells = _find_cells(share, batch.lengths)
        old = Tokens(*(table[cells].to(outputs.device) for table in known))
        loss, watched = sum_losses(found.logprobs.float(), found.values.float(), old, clips)
        return loss, torch.stack(list(watched)), outputs

    def _lay_out(self, texts: Sequence[EncodedAnswer], share: Share) -> AnswerBatch:
        """The batch of a share; of the first text if it is empty, since all ranks must run the model alike."""
        own = [texts[text] for text in share or [0]]
        heads = [text.ids[: text.start] for text in own]
        groups = [heads.index(head) for head in heads]
        return collate_answers(own, groups, self.pad, self.layout)

    def _add_gradient(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a loss to that of the update; after the last one DeepSpeed changes the weights."""
        self.accelerator.sync_gradients = last
        self.accelerator.backward(loss)

    def _step(self) -> tuple[bool, float]:
        """Change the weights. Returns whether they were changed, and the norm of the gradient."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            norm = float(self.engine.get_global_grad_norm())
            return not self.optimiser.step_was_skipped, norm
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.most_norm))
        if math.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad()
        return math.isfinite(norm), norm

    def set_rate(self, factor: float) -> None:
        """Set the learning rates to a share of those of the recipe."""
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def _find_cells(share: Share, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of a share's tokens in tables ``[M, T]`` of all texts, answer after answer."""
    rows = torch.tensor(share).repeat_interleave(lengths)
    columns = torch.cat([torch.arange(int(length)) for length in lengths])
    return rows, columns


def make_groups(model: nn.Module, run: ExpertRun) -> list[dict[str, Any]]:
    """Make the optimiser's groups: the policy's and the critic's weights, with and without decay.

    Norms and biases do not decay, as in ``transformers.Trainer``.
    """
    assert isinstance(run.policy, PpoPolicy)
    optimisation, critic = run.optimisation, run.policy.critic_learning_rate
    rates = {"policy.": optimisation.learning_rate, "critic.": critic or optimisation.learning_rate}
    decayed = set(get_parameter_names(model, [nn.LayerNorm], list(UNDECAYED)))
    groups = []
    for part, rate in rates.items():
        for decays in (True, False):
            weights = [
                weight
                for name, weight in model.named_parameters()
                if weight.requires_grad and name.startswith(part) and (name in decayed) == decays
            ]
            decay = optimisation.weight_decay if decays else 0.0
            groups.append({"params": weights, "lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]
