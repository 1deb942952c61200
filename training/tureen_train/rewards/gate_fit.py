"""Training of a gate on cached rewards and prompt states, by Bradley-Terry's loss on the overall rewards."""

import math
from collections.abc import Iterator

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional
from transformers import get_scheduler

from tureen_core.heads import GatedHead
from tureen_train.config import Optimisation, Watch
from tureen_train.measures.non_finite import require_finite
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.frozen import FitContext


def compute_overall_gaps(gate: GatedHead, rewards: Tensor, prompts: Tensor, pairs: Tensor) -> Tensor:
    """Compute the gap of overall rewards, S(better) − S(worse), ``[P]``.

    Args:
        rewards: ``[M, K]``, of all answers.
        prompts: ``[B, H]``, hidden states of all prompts.
        pairs: ``[P, 3]``, the rows of the better answer, the worse answer and the prompt.
    """
    better, worse, prompt = pairs.T
    return GatedHead.score(rewards[better] - rewards[worse], gate.coefficients(prompts[prompt]))


def train_gate(
    gate: GatedHead,
    rewards: Tensor,
    prompts: Tensor,
    pairs: Tensor,
    settings: Optimisation,
    watch: Watch,
    context: FitContext,
) -> None:
    """Train the gate, its scale too, by AdamW on pairs drawn with replacement.

    As in ArmoRM's code gradients are not clipped. For the tensors see :func:`compute_overall_gaps`.
    """
    passes = math.ceil(settings.epochs * len(pairs) / settings.batch)
    steps = settings.max_steps if settings.max_steps > 0 else passes
    optimiser = torch.optim.AdamW(gate.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = get_scheduler(settings.schedule, optimiser, round(settings.warmup * steps), steps)
    losses: list[float] = []
    batches = draw_pair_batches(pairs, settings.batch, steps, settings.seed)
    for step, some in enumerate(track(batches, "training", steps), 1):
        gate.train()
        loss = require_finite(functional.softplus(-compute_overall_gaps(gate, rewards, prompts, some)).mean())
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([each.grad for each in gate.parameters() if each.grad is not None])
        optimiser.step()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        gate.eval()
        losses.append(loss.item())
        if step % watch.log_every == 0 or step in (1, steps):
            mean = sum(losses) / len(losses)
            found = {"loss": mean, "grad_norm": float(norm), "learning_rate": rate, "scale": gate.scale.item()}
            context.journal.log({"step": step, **found})
            losses = []
        if watch.eval_every and step % watch.eval_every == 0:
            context.log_metrics(step)


def find_pairs(records: EncodedRecords) -> Tensor:
    """Find all comparable pairs, ``[P, 3]``: the rows of the better and the worse answer among all answers, and the
    number of the prompt.
    """
    rows, start = [], 0
    for number, item in enumerate(records.items):
        rows += [(start + better, start + worse, number) for better, worse in item.pairs]
        start += len(item.ids)
    return torch.tensor(rows, dtype=torch.long).reshape(-1, 3)


def draw_pair_batches(pairs: Tensor, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the pairs of each step: ``batch`` rows of ``pairs``, drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield pairs[torch.randint(len(pairs), (batch,), generator=generator).to(pairs.device)]
