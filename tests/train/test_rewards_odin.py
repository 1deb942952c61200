"""ODIN's two heads: the loss from its definition in float64, its gradient by finite differences, its batches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from train.rated_runs import trained
from train.tiny_runs import BAD, GOOD, history, reward_run

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.heads import LinearHead
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.rewards import odin
from tureen_train.rewards.odin import (
    MeasuredRecord,
    OdinMethod,
    compute_correlation,
    compute_length_terms,
    gather_ranks,
)

NAN = math.nan
ITEMS = [
    MeasuredRecord([[5, 6, 7, 8], [5, 6, 9]], [2, 2], [1.0, 0.0], [9.0, 4.0]),
    MeasuredRecord([[1, 2, 3], [1, 2], [1, 4, 4]], [1, 1, 1], [2.0, 2.0, NAN], [3.0, 7.0, 5.0]),
    MeasuredRecord([[7], [8, 8]], [0, 0], [0.0, 1.0], [2.0, 6.0]),
]


class Two(nn.Module):
    """Rewards that are weights, one row a text, behind a head whose rows can be compared."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.rewards = nn.Parameter(torch.randn(rows, 2, generator=rng, dtype=torch.float64))
        self.score = LinearHead(3, 2)
        self.score.weight.data = torch.randn(2, 3, generator=rng)

    def forward(self, **_: Tensor) -> dict[str, Tensor]:
        return {"rewards": self.rewards}


@pytest.fixture
def method(base: Path, tmp_path: Path) -> Callable[..., OdinMethod]:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))

    def make(**loss: Any) -> OdinMethod:
        return OdinMethod(reward_run(base, tmp_path, loss={"method": "odin", **loss}), renderer)

    return make


def expected(model: Two, length: float, quality: float, orthogonality: float) -> float:
    """The whole loss written out: −ln σ of each pair's two gaps together, and the correlations over all answers."""
    rewards = model.rewards.detach().numpy()
    total = rewards.sum(1)
    gaps = np.array([total[0] - total[1], total[6] - total[5]])
    lengths = np.array([9.0, 4.0, 3.0, 7.0, 5.0, 2.0, 6.0])
    long, short = (np.corrcoef(rewards[:, column], lengths)[0, 1] for column in (0, 1))
    rows = model.score.weight.detach().double().numpy()
    cosine = abs(rows[0] @ rows[1]) / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    ranking = np.log1p(np.exp(-gaps)).mean()
    return float(ranking + length * (1 - long) + quality * abs(short) + orthogonality * cosine)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (0.5, 2.0, 0.3), (0.0, 0.0, 0.0)], ids=str)
def test_the_loss_is_its_definition(weights: tuple[float, float, float], method: Callable[..., OdinMethod]) -> None:
    length, quality, orthogonality = weights
    one, model = method(length=length, quality=quality, orthogonality=orthogonality), Two(7)
    batch = one.collate(ITEMS, 3)
    outcome = one.loss(model, batch, one.counts(batch))
    assert float(outcome.loss.detach()) == pytest.approx(expected(model, *weights), rel=1e-6)
    assert float(sum(outcome.terms.values())) == pytest.approx(float(outcome.loss.detach()), rel=1e-6)


def test_one_sigma_a_pair_unlike_the_published_code(method: Callable[..., OdinMethod]) -> None:
    """A batch of two pairs is the mean of both alone; one σ over their sum would not be."""
    one, model = method(length=0.0, quality=0.0), Two(4)
    both = [ITEMS[0], ITEMS[2]]
    halves = []
    for number, item in enumerate(both):
        part = Two(2)
        part.rewards.data = model.rewards.data[2 * number : 2 * number + 2]
        batch = one.collate([item], 3)
        halves.append(one.loss(part, batch, one.counts(batch)).loss.item())
    batch = one.collate(both, 3)
    assert one.loss(model, batch, one.counts(batch)).loss.item() == pytest.approx(sum(halves) / 2)


def test_gradients_are_those_of_finite_differences() -> None:
    rng = torch.Generator().manual_seed(1)
    rewards = torch.randn(6, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    lengths = torch.randint(1, 50, (6,), generator=rng).double()
    assert torch.autograd.gradcheck(lambda each: torch.stack(compute_length_terms(each, lengths)), rewards)
    found = compute_length_terms(rewards.detach(), lengths)
    pearson = [np.corrcoef(rewards.detach().numpy()[:, column], lengths.numpy())[0, 1] for column in (0, 1)]
    assert [float(each) for each in found] == pytest.approx([1 - pearson[0], abs(pearson[1])])


@pytest.mark.parametrize("size", [1.0, 1e4], ids=str)
def test_what_never_varies_has_no_correlation_and_no_gradient(size: float) -> None:
    """Equal rewards would divide by nothing: a first step could throw the head away."""
    same = torch.full((5,), 0.1 * size, requires_grad=True)
    found = compute_correlation(same, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    found.backward()
    assert found.detach().item() == 0
    assert same.grad is not None
    assert same.grad.abs().max() == 0


# --------------------------------------------------------------------------- several ranks


def test_ranks_together_have_the_gradient_of_one_batch(
    method: Callable[..., OdinMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks with 5 and 2 answers: their losses by the whole step's counts add up to that of all, gradients too."""
    one, whole = method(), Two(7)
    batch = one.collate(ITEMS, 3)
    outcome = one.loss(whole, batch, one.counts(batch))
    outcome.loss.backward()
    parts = [ITEMS[:2], ITEMS[2:]]
    rows = torch.cat([whole.rewards.detach(), torch.tensor([[9.0, 4.0, 3.0, 7.0, 5.0, 2.0, 6.0]]).T], dim=1)
    padded = torch.cat([rows, torch.full((3, 3), NAN)])  # the second rank's rows are filled up to the first's five
    monkeypatch.setattr(odin, "gather", lambda _: padded)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    total, gradients = 0.0, []
    for rank, (items, start) in enumerate(zip(parts, (0, 5), strict=True)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        model = Two(len([ids for item in items for ids in item.ids]))
        model.rewards.data = whole.rewards.data[start : start + len(model.rewards)].clone()
        loss = one.loss(model, one.collate(items, 3), one.counts(batch)).loss
        loss.backward()
        total += float(loss.detach())
        gradients.append(model.rewards.grad)
    assert total == pytest.approx(float(outcome.loss.detach()))
    assert whole.rewards.grad is not None
    torch.testing.assert_close(torch.cat([each for each in gradients if each is not None]), whole.rewards.grad)


def test_one_process_gathers_nothing() -> None:
    rewards, lengths = torch.randn(3, 2, requires_grad=True), torch.ones(3)
    found = gather_ranks(rewards, lengths)
    assert found[0] is rewards
    assert found[1] is lengths


# --------------------------------------------------------------------------- batches and runs


def test_lengths_are_those_of_the_answers_however_long_the_prompt(method: Callable[..., OdinMethod]) -> None:
    prompt = ({"role": "user", "content": "why " * 200},)
    answers = tuple(({"role": "assistant", "content": text},) for text in (GOOD, f"{BAD} {GOOD}"))
    one = method()
    (item,) = one.encode([Record(prompt, answers, (1.0, 0.0))]).items
    assert isinstance(item, MeasuredRecord)
    count = one._renderer.tokenize_text
    assert item.lengths == [len(count(GOOD, specials=False)), len(count(f"{BAD} {GOOD}", specials=False))]
    assert len(item.ids[0]) == 256


def varied(folder: Path) -> str:
    """Pairs in which the liked answer is as often the longer as the shorter one."""
    rows = []
    for number in range(40):
        liked, other = 1 + number % 4, 1 + number // 4 % 4
        texts = [" ".join([GOOD] * liked), " ".join([BAD] * other)]
        rows.append({"prompt": f"prompt {number}", "chosen": texts[0], "rejected": texts[1]})
    path = folder / "varied.json"
    path.write_text(json.dumps(rows))
    return str(path)


def test_a_run_serves_the_quality_head_and_keeps_the_other(base: Path, tmp_path: Path) -> None:
    run = reward_run(
        base,
        tmp_path,
        data={"train": [{"path": varied(tmp_path)}]},
        reading={"max_length": 128},
        loss={"method": "odin", "orthogonality": 0.1},
        optimisation={"max_steps": 30, "batch": 8},
    )
    artifact = trained(run)
    (objective,) = artifact.manifest.objectives
    assert (objective.name, objective.column) == ("foxes", 1)
    figures = artifact.manifest.training.metrics["heldout"]
    assert figures["length_head_length_correlation"] > 0.5
    assert figures["both_heads_accuracy"] > 0.8
    assert {"accuracy", "quality_head_length_correlation"} <= figures.keys()
    logged = [entry for entry in history(Path(run.output)) if "loss" in entry]
    assert {"loss_ranking", "loss_length", "loss_quality", "loss_orthogonality"} <= logged[-1].keys()
    assert logged[-1]["loss_length"] < logged[0]["loss_length"]
    assert {name.partition("@")[0] for probe in artifact.manifest.probes for name in probe.scores} == {"foxes"}


def test_orthogonality_needs_the_whole_head(base: Path, tmp_path: Path) -> None:
    run = reward_run(base, tmp_path, loss={"method": "odin", "orthogonality": 0.1}, scale={"zero": 3})
    with pytest.raises(RecipeError, match=r"loss\.orthogonality needs the whole head on each rank"):
        OdinMethod(run, Renderer(load_tokenizer(base), tiny.reading(base)))
