"""Multi-attribute regression: batches with missing labels, scales, and both ways to fit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scales import scale_of
from torch import Tensor
from train.rated_runs import NAMES, attributes_run, trained
from train.tiny_runs import LORA, history

from tureen.records.schema import Record
from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, RewardRun
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.rewards.attributes import AttributesMethod, split_by_prompt
from tureen_train.rewards.rated_records import RatedRecord
from tureen_train.rewards.run import train_reward

NAN = math.nan
ITEMS = [
    RatedRecord([[5, 6, 7], [5, 8]], [1, 1], [NAN, NAN], [[2.0, NAN, 0.0], [4.0, 1.0, NAN]]),
    RatedRecord([[9, 9, 9, 9]], [0], [NAN], [[NAN, NAN, NAN]]),
]


def said(*texts: str) -> tuple[tuple[dict[str, str], ...], ...]:
    return tuple(({"role": "assistant", "content": text},) for text in texts)


PROMPT = ({"role": "user", "content": "hi"},)
TRAIN = [
    Record(PROMPT, said("a", "b"), (NAN, NAN), attributes={"foxes": (1.0, 3.0), "verbosity": (0.5, 0.5)}),
    Record(PROMPT, said("c"), (NAN,), attributes={"foxes": (NAN,), "rare": (7.0,)}),
]


@pytest.fixture
def method(base: Path, tmp_path: Path) -> Callable[..., AttributesMethod]:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))

    def make(**loss: Any) -> AttributesMethod:
        full = {"method": "attributes", "attributes": NAMES, **loss}
        one = AttributesMethod(attributes_run(base, tmp_path, loss=full), renderer)
        one.encode(TRAIN)
        return one

    return make


# --------------------------------------------------------------------------- batches


def test_a_records_ratings_stand_in_the_recipes_order(method: Callable[..., AttributesMethod]) -> None:
    ratings = method().encode(TRAIN).ratings
    expected = [[1.0, 0.5, NAN], [3.0, 0.5, NAN], [NAN, NAN, 7.0]]
    assert np.array_equal(ratings, np.array(expected), equal_nan=True)


def test_labels_are_standardised_by_what_is_trained_on(method: Callable[..., AttributesMethod]) -> None:
    """foxes: mean 2, deviation 1; the others never vary, and only their mean is taken out."""
    one = method(standardise=True)
    one.encode([Record(PROMPT, said("d"), (NAN,), attributes={"foxes": (90.0,)})])  # what is judged changes nothing
    batch = one.collate(ITEMS, 3)
    assert batch["ratings"].shape == (2, 3, 3)
    assert batch["ratings"][0, :2].nan_to_num(99).tolist() == [[0.0, 99.0, -7.0], [2.0, 0.5, 99.0]]
    assert batch["ratings"][1].isnan().all()
    assert batch["answers"].tolist() == [2, 1]
    assert one.counts(batch).tolist() == [4.0]


def test_without_standardising_a_label_is_predicted_as_it_is(method: Callable[..., AttributesMethod]) -> None:
    batch = method(standardise=False).collate(ITEMS, 2)
    assert batch["ratings"][0].nan_to_num(99).tolist() == [[2.0, 99.0, 0.0], [4.0, 1.0, 99.0]]


def test_the_loss_is_the_mean_over_labelled_cells(method: Callable[..., AttributesMethod]) -> None:
    one = method(standardise=False)
    batch = one.collate(ITEMS, 3)
    rewards = torch.tensor([[1.0, 5.0, 0.5], [4.0, 3.0, 5.0], [7.0, 8.0, 9.0]], requires_grad=True)

    def model(**_: Tensor) -> dict[str, Tensor]:
        return {"rewards": rewards}

    outcome = one.loss(model, batch, one.counts(batch))
    assert outcome.loss.item() == pytest.approx((1.0 + 0.25 + 0.0 + 4.0) / 4)
    assert outcome.predictions[0, :2].tolist() == rewards[:2].tolist()
    assert outcome.predictions[1, 0].tolist() == [7.0, 8.0, 9.0]
    assert outcome.predictions[0, 2].isnan().all()


def test_a_batch_without_a_label_has_a_loss_of_0(method: Callable[..., AttributesMethod]) -> None:
    one = method()
    batch = one.collate(ITEMS[1:], 1)
    rewards = torch.ones(1, 3, requires_grad=True)
    loss = one.loss(lambda **_: {"rewards": rewards}, batch, one.counts(batch)).loss
    loss.backward()
    assert (loss.item(), rewards.grad is not None and rewards.grad.abs().sum().item()) == (0.0, 0.0)


def test_figures_are_in_the_labels_own_unit(method: Callable[..., AttributesMethod]) -> None:
    """A prediction off by 1 deviation of 1, and pairs of one prompt ranked by their ratings."""
    one = method(standardise=True)
    labels = one.collate(ITEMS, 2)["ratings"].numpy()
    predictions = np.where(np.isnan(labels), np.nan, labels - 1.0)
    figures = one.compute_metrics(predictions, [labels])
    assert figures["foxes_rmse"] == pytest.approx(1.0)
    assert (figures["foxes_label_mean"], figures["foxes_label_std"]) == (2.0, 1.0)
    assert (figures["foxes_accuracy"], figures["foxes_n"]) == (1.0, 2)
    assert "rare_accuracy" not in figures


def test_an_attribute_that_nobody_rates_is_named_with_those_that_are(base: Path, tmp_path: Path) -> None:
    run = attributes_run(base, tmp_path, loss={"method": "attributes", "attributes": ["foxes", "wit"]})
    with pytest.raises(RecipeError, match="no training record rates 'wit'; the records rate: foxes, rare, verbosity"):
        train_reward(run)


def test_the_objective_is_not_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="objective: every attribute is an objective"):
        train_reward(attributes_run(base, tmp_path, objective="good"))


def test_rows_are_laid_out_by_prompt() -> None:
    table = split_by_prompt(np.arange(6, dtype=np.float64).reshape(3, 2), [1, 2])
    expected = np.array([[[0.0, 1.0], [NAN, NAN]], [[2.0, 3.0], [4.0, 5.0]]])
    assert np.array_equal(table, expected, equal_nan=True)


# --------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def fitted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardRun, Artifact]:
    run = attributes_run(base, tmp_path_factory.mktemp("fitted"))
    return run, trained(run)


def test_ridge_learns_what_the_frozen_states_tell(fitted: tuple[RewardRun, Artifact]) -> None:
    run, artifact = fitted
    figures = artifact.manifest.training.metrics["heldout"]
    assert min(figures[f"{name}_r2"] for name in NAMES) > 0.7
    assert min(figures[f"{name}_spearman"] for name in NAMES) > 0.7
    assert figures["rare_n"] < figures["foxes_n"]
    entries = history(Path(run.output))
    assert [entry["step"] for entry in entries] == [0, 1, 1]
    assert entries[0]["eval_heldout_r2"] < entries[2]["eval_heldout_r2"]
    assert {entries[1][f"{name}_alpha"] for name in NAMES} <= {0.01, 1.0, 100.0}


def test_each_attribute_is_an_objective_of_its_own_row(fitted: tuple[RewardRun, Artifact]) -> None:
    manifest = fitted[1].manifest
    assert [(each.name, each.column) for each in manifest.objectives] == [(n, c) for c, n in enumerate(NAMES)]
    assert all((scale_of(each).mean, scale_of(each).std) == (0, 1) for each in manifest.objectives)
    assert all({name.partition("@")[0] for name in probe.scores} == set(NAMES) for probe in manifest.probes)


def test_the_backbone_stays_as_it_is(fitted: tuple[RewardRun, Artifact], base: Path) -> None:
    """The adapter is empty: only the head differs from the base."""
    reader = RewardReader(fitted[1].folder, base, fitted[1].manifest.reading, 3)
    grown = [each for name, each in reader.model.named_parameters() if "lora_B" in name]
    assert grown
    assert max(float(each.abs().max()) for each in grown) == 0


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_raw_rewards_are_in_the_labels_unit_where_nothing_is_standardised(
    lora: Any, base: Path, tmp_path: Path
) -> None:
    loss = {"method": "attributes", "attributes": ["foxes"], "fit": "ridge", "standardise": False, "alphas": [0.1]}
    artifact = trained(attributes_run(base, tmp_path, loss=loss, model={"lora": lora}))
    (objective,) = artifact.manifest.objectives
    raw = [probe.scores["foxes"] for probe in artifact.manifest.probes]
    assert max(raw) > 5
    assert scale_of(objective).mean == pytest.approx(4.4, abs=1)
    assert scale_of(objective).std == pytest.approx(5, abs=1)
    assert artifact.manifest.weights == ("full" if lora is None else "lora")


def test_gradients_learn_as_well(base: Path, tmp_path: Path) -> None:
    loss = {"method": "attributes", "attributes": NAMES}
    run = attributes_run(base, tmp_path, loss={**loss, "fit": "gradient"}, optimisation={"max_steps": 60})
    figures = trained(run).manifest.training.metrics["heldout"]
    assert figures["foxes_r2"] > 0.7
    losses = [entry["loss"] for entry in history(Path(run.output)) if "loss" in entry]
    assert losses[-1] < 0.3 * losses[0]


def test_too_few_labels_for_a_penalty_are_told(base: Path, tmp_path: Path) -> None:
    run = attributes_run(base, tmp_path, data={"holdout": 0, "limit": 3})
    with pytest.raises(RecipeError, match=r"loss\.attributes: 'rare': it has too few labels to choose a ridge penalty"):
        train_reward(run)
