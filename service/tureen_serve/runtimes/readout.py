"""Rewards from pooled hidden states: which head reads which row, and how the heads of a blend are weighed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tureen_core.artifact import Artifact, read_gate
from tureen_core.heads import LinearHead, Pooling
from tureen_serve.runtimes.contract import Head, Row, Weights


@dataclass(frozen=True)
class ReadOut:
    """How a reward leaves the hidden states. Those of one blend differ in their head's weights only.

    ``head`` makes ``[n, K]`` of ``[n, H]``. ``gate`` reads a prompt instead of a whole text, where a model has one.
    """

    head: Callable[[Tensor], Tensor]
    pooling: Pooling
    eos_appended: bool
    gate: "ReadOut | None" = None


def make_readout(artifact: Artifact, weight: Tensor, device: torch.device) -> ReadOut:
    """An artifact's; of its head the rows that an objective reads, so that heads of one objective can be blended."""
    reading = artifact.manifest.reading
    weight = weight[: artifact.manifest.rows]
    head = LinearHead(weight.shape[1], weight.shape[0]).to(device).requires_grad_(False)
    head.weight.copy_(weight)
    gate = read_gate(artifact)
    prompts = None if gate is None else ReadOut(gate.to(device).coefficients, "eos", eos_appended=False)
    return ReadOut(head, reading.pooling, reading.eos == "append", prompts)


def select_readout(readouts: Mapping[str, ReadOut], row: Row) -> ReadOut:
    """How a row is read: as the first model of its blend reads."""
    found = readouts[row.blend[0][0]]
    return found.gate if row.head == "gate" and found.gate else found


def weigh_rewards(rewards: Sequence[float], coefficients: Sequence[float]) -> float:
    """A gated model's overall reward Σₖ Rₖ·cₖ of a text's rewards and its prompt's coefficients."""
    return math.fsum(reward * each for reward, each in zip(rewards, coefficients, strict=True))


def read_rewards(
    rows: Sequence[Row], readouts: Mapping[str, ReadOut], pooled: Callable[[list[int], ReadOut], Tensor]
) -> list[tuple[float, ...]]:
    """Σ wᵢ·headᵢ of each row's pooled hidden state, in order.

    Args:
        readouts: adapter name → its head.
        pooled: indices of rows and how they are read → their hidden states ``[n, H]``.
    """
    values: list[tuple[float, ...]] = [()] * len(rows)
    alike: dict[tuple[Weights, Head], list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault((row.blend, row.head), []).append(index)
    for (blend, _), picks in alike.items():
        like = select_readout(readouts, rows[picks[0]])
        states = pooled(picks, like)
        heads = [like] if len(blend) == 1 else [readouts[name] for name, _ in blend]
        weights = [weight for _, weight in blend]
        rewards = torch.stack([weight * each.head(states) for each, weight in zip(heads, weights, strict=True)]).sum(0)
        for index, columns in zip(picks, rewards.tolist(), strict=True):
            values[index] = tuple(columns)
    return values
