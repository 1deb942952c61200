"""Rewards from hidden states: choose the head of each row, pool, apply it, and weigh the heads of a blend."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tureen_core.artifact import Artifact, read_gate, read_head
from tureen_core.heads import Pooling
from tureen_serve.runtimes.contract import Head, Row, Weights


@dataclass(frozen=True)
class ReadOut:
    """How rewards are read from hidden states. The read-outs of one blend differ only in the weights of the head.

    Attributes:
        head: maps pooled hidden states ``[n, H]`` to ``[n, K]``.
        pooling: which hidden states of a text are pooled, and how.
        eos_appended: whether rendering ends every text with EOS.
        gate: the read-out of a gated model's coefficients, at the end of the prompt; None for other models.
    """

    head: Callable[[Tensor], Tensor]
    pooling: Pooling
    eos_appended: bool
    gate: "ReadOut | None" = None


def make_readout(artifact: Artifact, device: torch.device) -> ReadOut:
    """Make the read-out of an artifact whose head reads hidden states."""
    reading = artifact.manifest.reading
    head = read_head(artifact).to(device)
    gate = read_gate(artifact)
    prompts = None if gate is None else ReadOut(gate.to(device).coefficients, "eos", eos_appended=False)
    return ReadOut(head, reading.pooling, reading.eos == "append", prompts)


def select_readout(readouts: Mapping[str, ReadOut], row: Row) -> ReadOut:
    """Select the read-out of a row: the one of its blend's first model."""
    found = readouts[row.blend[0][0]]
    return found.gate if row.head == "gate" and found.gate else found


def weigh_rewards(rewards: Sequence[float], coefficients: Sequence[float]) -> float:
    """Compute a gated model's overall reward Σₖ Rₖ·cₖ from a text's rewards and its prompt's coefficients."""
    return math.fsum(reward * each for reward, each in zip(rewards, coefficients, strict=True))


def read_rewards(
    rows: Sequence[Row], readouts: Mapping[str, ReadOut], pool: Callable[[list[int], ReadOut], Tensor]
) -> list[tuple[float, ...]]:
    """Compute the rewards Σ wᵢ·headᵢ(h) of each row, in order. h is the row's pooled hidden state.

    Args:
        readouts: maps an adapter's name to its read-out.
        pool: returns the pooled hidden states ``[n, H]`` of the rows with these indices, for their read-out.
    """
    values: list[tuple[float, ...]] = [()] * len(rows)
    groups: dict[tuple[Weights, Head], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.blend, row.head), []).append(index)
    for (blend, _), indices in groups.items():
        readout = select_readout(readouts, rows[indices[0]])
        states = pool(indices, readout)
        heads = [readout] if len(blend) == 1 else [readouts[name] for name, _ in blend]
        weights = [weight for _, weight in blend]
        rewards = torch.stack([weight * each.head(states) for each, weight in zip(heads, weights, strict=True)]).sum(0)
        for index, columns in zip(indices, rewards.tolist(), strict=True):
            values[index] = tuple(columns)
    return values
