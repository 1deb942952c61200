"""Linear probing: the head that a convex problem says, on features that training sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.optimize import minimize

from tureen_core.base import load_tokenizer, weights_digest
from tureen_core.template import Renderer
from tureen_train.config import Model, RecipeError, resolve
from tureen_train.records.schema import Record
from tureen_train.rewards.collate import Collator, EncodedRecords
from tureen_train.rewards.losses import ranking_loss
from tureen_train.rewards.model import load
from tureen_train.rewards.probe import fit, probe


def records(count: int) -> list[Record]:
    """Answers whose third word says how good they are."""
    words = ("bad", "fair", "good")
    return [
        Record(
            prompt=({"role": "user", "content": f"question {number}?"},),
            answers=tuple(({"role": "assistant", "content": f"it is {word}, says {number}"},) for word in words),
            scores=(0.0, 0.0, 1.0) if number % 2 else (0.0, 1.0, 2.0),
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("base"))


def opened(base: Path) -> tuple[Any, EncodedRecords, Renderer]:
    reading = tiny.reading(base)
    renderer = Renderer(load_tokenizer(base), reading)
    model = load(base, Model(base=str(base), precision="fp32"), reading)
    return model, EncodedRecords(records(12), renderer), renderer


def loss_of(model: Any, train: EncodedRecords, renderer: Renderer) -> float:
    batch = Collator(renderer.tokenizer.pad_token_id, loss=_no_imitation(), width=train.width)(train.items)
    with torch.inference_mode():
        rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])["rewards"][:, 0]
    scores = batch["scores"]
    return float(ranking_loss(rewards, scores[~scores.isnan()], batch["group"]))


def _no_imitation() -> Any:
    from tureen_train.config import RewardLoss

    return RewardLoss()


@pytest.mark.parametrize("decay", [0.01, 0.1, 1.0])
def test_the_fit_is_the_minimum_that_scipy_finds(decay: float) -> None:
    gaps = torch.randn(60, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wide = gaps.numpy()

    def objective(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -wide @ w).mean() + decay / 2 * w @ w)

    expected = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    assert np.allclose(fit(gaps.float(), decay).numpy(), expected, atol=2e-4)


def test_a_larger_penalty_gives_a_shorter_head() -> None:
    gaps = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    lengths = [float(fit(gaps, decay).norm()) for decay in (0.01, 0.1, 1.0)]
    assert lengths == sorted(lengths, reverse=True)


def test_a_probed_head_ranks_better_than_a_random_one_and_leaves_the_rest_alone(base: Path, tmp_path: Path) -> None:
    model, train, renderer = opened(base)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    random = loss_of(model, train, renderer)
    probe(model, train, 0.01, weights_digest(base), tmp_path)
    assert loss_of(model, train, renderer) < random - 0.1
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"score.weight"}


def test_features_are_kept_for_the_next_objective_on_the_same_texts(base: Path, tmp_path: Path) -> None:
    model, train, _ = opened(base)
    probe(model, train, 0.1, weights_digest(base), tmp_path)
    first = model.score.weight.detach().clone()
    (kept,) = (tmp_path / "features").iterdir()
    model.get_input_embeddings().weight.data.zero_()  # so that features computed anew would be others
    model.score.weight.data.zero_()
    probe(model, train, 0.1, weights_digest(base), tmp_path)
    assert torch.equal(model.score.weight, first)
    probe(model, train, 0.1, "another base", tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert kept.exists()


def test_zero_3_is_refused_with_the_reason() -> None:
    recipe = {"kind": "reward", "name": "x", "data": {"train": [{"path": "x"}]}, "scale": {"zero": 3}}
    with pytest.raises(RecipeError, match="reads the weights whole"):
        resolve({**recipe, "model": {"head": "probe"}})
    assert resolve({**recipe, "model": {"head": "random"}}).model.head == "random"
