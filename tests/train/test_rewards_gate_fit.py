"""Training a gate on cached states: the loss from ArmoRM's formula in float64, and pairs drawn with replacement."""

from pathlib import Path

import numpy as np
import pytest
import torch
from train.tiny_runs import history

from tureen_core.heads import GatedHead, LinearHead
from tureen_train.config import Optimisation, Watch
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords
from tureen_train.rewards.features import Features
from tureen_train.rewards.frozen import FitContext
from tureen_train.rewards.gate_fit import compute_overall_gaps, draw_pair_batches, find_pairs, train_gate
from tureen_train.rewards.verbosity import make_verbosity_transform
from tureen_train.runs.history import Journal

PAIRS = torch.tensor([[0, 1, 0], [2, 3, 1], [4, 3, 1]])


def world() -> tuple[GatedHead, torch.Tensor, torch.Tensor]:
    """Five answers of three attributes to two prompts, and a gate."""
    torch.manual_seed(0)
    gate = GatedHead(6, 3, width=8, depth=1, temperature=0.7, scale=2.0)
    gate.transform.copy_(make_verbosity_transform([0.3, 1.0, 0.05], 1))
    return gate.double(), torch.randn(5, 3), torch.randn(2, 6)


def test_gaps_are_those_of_the_overall_rewards_with_verbosity_taken_out() -> None:
    gate, rewards, prompts = world()
    with torch.no_grad():
        gates = gate.float()(prompts).double().numpy()
        found = compute_overall_gaps(gate, rewards, prompts, PAIRS).numpy()
    told = rewards.double().numpy()
    rid = told - np.outer(told[:, 1], [0.3, 1.0, 0.05])
    overall = [rid[row] @ gates[prompt] for row, prompt in enumerate([0, 0, 1, 1, 1])]
    expected = [overall[0] - overall[1], overall[2] - overall[3], overall[4] - overall[3]]
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(rid[:, 1]).max() == pytest.approx(0, abs=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of the coefficients' part, in float64: the gate itself stays in float32."""
    rng = torch.Generator().manual_seed(1)
    gaps, matrix = torch.randn(4, 3, generator=rng).double(), make_verbosity_transform([0.1, 1.0, 0.5], 1).double()
    logits = torch.randn(4, 3, generator=rng, dtype=torch.float64, requires_grad=True)

    def loss(each: torch.Tensor) -> torch.Tensor:
        coefficients = torch.softmax(each / 10.0, dim=-1) @ matrix.T
        return torch.nn.functional.softplus(-(gaps * coefficients).sum(-1)).mean()

    assert torch.autograd.gradcheck(loss, logits)


def make_context(folder: Path) -> FitContext:
    return FitContext(
        head=LinearHead(6, 3),
        features=Features(None, "none", folder, 1),  # nothing more is read here
        journal=Journal(folder / "history.jsonl"),
        evaluate=lambda: {"file": {"accuracy": 0.5}},
    )


def test_a_gate_learns_which_attribute_each_kind_of_prompt_goes_by(tmp_path: Path) -> None:
    """Prompts of one kind go by the first attribute, of the other by the second; noise goes by none."""
    rng = torch.Generator().manual_seed(2)
    kinds = torch.arange(60) % 2
    prompts = torch.randn(60, 6, generator=rng) + 3 * kinds[:, None]
    rewards = torch.randn(120, 3, generator=rng)
    better = [int(rewards[2 * i, kinds[i]] < rewards[2 * i + 1, kinds[i]]) for i in range(60)]
    pairs = torch.tensor([[2 * i + b, 2 * i + 1 - b, i] for i, b in enumerate(better)])
    torch.manual_seed(3)
    gate = GatedHead(6, 3, width=16, depth=2, temperature=1.0, dropout=0.1)
    settings = Optimisation(learning_rate=1e-2, max_steps=150, batch=32, warmup=0.0)
    train_gate(gate, rewards, prompts, pairs, settings, Watch(log_every=50, eval_every=75), make_context(tmp_path))
    with torch.no_grad():
        right = (compute_overall_gaps(gate, rewards, prompts, pairs) > 0).float().mean()
        mean = torch.stack([gate(prompts[kinds == kind]).mean(0) for kind in (0, 1)])
    assert right > 0.9
    assert mean.argmax(1).tolist() == [0, 1]
    entries = history(tmp_path)
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 50, 100, 150]
    assert [entry["step"] for entry in entries if "eval_file_accuracy" in entry] == [75, 150]
    rates = [entry["learning_rate"] for entry in entries if "loss" in entry]
    assert rates == sorted(rates, reverse=True)
    assert not gate.training


def test_without_a_number_of_steps_the_pairs_are_gone_through_as_often_as_asked(tmp_path: Path) -> None:
    gate, rewards, prompts = world()
    settings = Optimisation(epochs=4, batch=2)
    train_gate(gate.float(), rewards, prompts, PAIRS, settings, Watch(log_every=1), make_context(tmp_path))
    assert [entry["step"] for entry in history(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_every_ordered_pair_of_a_prompt_is_one() -> None:
    class Known(EncodedRecords):
        def __init__(self) -> None:
            self.items = [
                EncodedRecord([[1], [2]], [1, 1], [0.0, 1.0]),
                EncodedRecord([[3], [4], [5]], [1, 1, 1], [2.0, float("nan"), 2.0]),
                EncodedRecord([[6], [7], [8]], [1, 1, 1], [3.0, 2.0, 1.0]),
            ]

    assert find_pairs(Known()).tolist() == [[1, 0, 0], [5, 6, 2], [5, 7, 2], [6, 7, 2]]


def test_batches_are_drawn_by_the_seed_with_replacement() -> None:
    one, again, other = (list(draw_pair_batches(PAIRS, 16, 3, seed)) for seed in (1, 1, 2))
    assert [len(batch) for batch in one] == [16, 16, 16]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_steps_are_those_of_armorms_loop_with_its_scale_trained_and_no_clipping(tmp_path: Path) -> None:
    """Against a loop of plain torch: softmax(MLP(h) / T) times a scale, AdamW on all of it, a cosine schedule."""
    gate, rewards, prompts = world()
    gate = gate.float()
    layers = [torch.nn.Parameter(each.detach().clone()) for each in gate.layers.parameters()]
    scale = torch.nn.Parameter(gate.scale.detach().clone())
    settings = Optimisation(learning_rate=0.1, max_steps=6, batch=4, warmup=0.0, max_grad_norm=1e-3)
    optimiser = torch.optim.AdamW([*layers, scale], 0.1, weight_decay=0.0)
    for step, some in enumerate(draw_pair_batches(PAIRS, 4, 6, settings.seed)):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * step / 6)) / 2
        first, bias, last, offset = layers
        hidden = torch.relu(prompts[some[:, 2]] @ first.T + bias)
        weights = scale * torch.softmax((hidden @ last.T + offset) / gate.temperature, dim=-1)
        gaps = ((rewards[some[:, 0]] - rewards[some[:, 1]]) @ gate.transform * weights).sum(-1)
        optimiser.zero_grad()
        torch.nn.functional.softplus(-gaps).mean().backward()
        optimiser.step()
    train_gate(gate, rewards, prompts, PAIRS, settings, Watch(log_every=1), make_context(tmp_path))
    torch.testing.assert_close(gate.scale, scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(list(gate.layers.parameters()), layers, atol=1e-4, rtol=1e-4)
    assert abs(gate.scale.item() - 2.0) > 0.05
    assert history(tmp_path)[-1]["scale"] == gate.scale.item()
