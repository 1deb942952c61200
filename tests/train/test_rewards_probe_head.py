"""Linear probing: the head that the base's frozen features suggest, before anything else is trained."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize
from train.tiny_runs import history, reward_run

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Model, RecipeError, resolve_recipe
from tureen_train.measures.metrics import compute_accuracy, compute_gaps
from tureen_train.networks.reward_model import load_reward_model
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.probe_head import fit_ranking_head, start_from_probe
from tureen_train.rewards.run import train_reward


@pytest.fixture(scope="module")
def records(base: Path) -> EncodedRecords:
    """Foxes above leaves, in prompts of two to four answers, and one tie."""
    rows = []
    for number in range(12):
        answers = ["the quick fox", *["leaves fall"] * (1 + number % 3)]
        scores = (1.0, *[0.0] * (len(answers) - 1)) if number else (1.0, 1.0)
        said = tuple(({"role": "assistant", "content": f"{answer} {number}"},) for answer in answers)
        rows.append(Record(({"role": "user", "content": f"prompt {number}"},), said, scores))
    return EncodedRecords(rows, Renderer(load_tokenizer(base), tiny.reading(base)))


def model(base: Path) -> Any:
    torch.manual_seed(0)
    return load_reward_model(base, Model(lora=None, precision="fp32"), tiny.reading(base))


def rewards(one: Any, records: EncodedRecords) -> list[list[float]]:
    rows = []
    for item in records.items:
        with torch.no_grad():
            row = [
                float(one(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()).rewards)
                for ids in item.ids
            ]
        rows.append(row + [math.nan] * (records.width - len(row)))
    return rows


def share_right(one: Any, records: EncodedRecords) -> float:
    scores = [item.scores + [math.nan] * (records.width - len(item.scores)) for item in records.items]
    return compute_accuracy(compute_gaps(rewards(one, records), scores))


# --------------------------------------------------------------------------- the fit


@pytest.mark.parametrize("decay", [0.01, 0.1, 1.0])
def test_the_fit_is_the_minimum(decay: float) -> None:
    torch.manual_seed(1)
    gaps = torch.randn(40, 6) + 0.5
    found = fit_ranking_head(gaps, decay)
    rows = gaps.double().numpy()

    def loss(weight: Any) -> float:
        import numpy as np

        return float(np.logaddexp(0, -(rows @ weight)).mean() + decay / 2 * (weight**2).sum())

    reference = minimize(loss, [0.0] * 6, tol=1e-10)
    assert found.tolist() == pytest.approx(reference.x.tolist(), abs=2e-3)


def test_more_decay_is_a_smaller_head() -> None:
    gaps = torch.randn(30, 4, generator=torch.Generator().manual_seed(2)) + 1
    norms = [float(fit_ranking_head(gaps, decay).norm()) for decay in (0.01, 0.1, 1.0, 10.0)]
    assert norms == sorted(norms, reverse=True)


# --------------------------------------------------------------------------- the head


def test_a_probed_head_ranks_what_a_random_one_does_not(base: Path, tmp_path: Path, records: EncodedRecords) -> None:
    one = model(base)
    with torch.no_grad():
        one.score.weight.copy_(-one.score.weight if share_right(one, records) > 0.5 else one.score.weight)
    before = {name: weight.clone() for name, weight in one.named_parameters() if "score" not in name}
    assert share_right(one, records) <= 0.5
    start_from_probe(one, records, 0.1, "base", tmp_path)
    assert share_right(one, records) > 0.95
    assert all(torch.equal(weight, before[name]) for name, weight in one.named_parameters() if name in before)


def test_features_are_kept_for_the_next_objective_on_the_same_texts(
    base: Path, tmp_path: Path, records: EncodedRecords
) -> None:
    first, second = model(base), model(base)
    start_from_probe(first, records, 0.1, "base", tmp_path)
    (kept,) = (tmp_path / "features").iterdir()
    assert load_file(kept)["features"].shape == (sum(len(item.ids) for item in records.items), 32)
    calls: list[int] = []
    second.model.register_forward_hook(lambda *_: calls.append(1))
    start_from_probe(second, records, 0.1, "base", tmp_path)
    assert calls == []
    assert torch.equal(first.score.weight, second.score.weight)


def test_other_weights_have_other_features(base: Path, tmp_path: Path, records: EncodedRecords) -> None:
    start_from_probe(model(base), records, 0.1, "base", tmp_path)
    start_from_probe(model(base), records, 0.1, "another base", tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_where_nothing_compares_the_head_stays(base: Path, tmp_path: Path, records: EncodedRecords) -> None:
    ties = EncodedRecords([], Renderer(load_tokenizer(base), tiny.reading(base)))
    ties.items = [records.items[0]]
    one = model(base)
    before = one.score.weight.clone()
    start_from_probe(one, ties, 0.1, "base", tmp_path)
    assert torch.equal(one.score.weight, before)


# --------------------------------------------------------------------------- in a run


def test_a_run_may_begin_with_a_probed_head(base: Path, tmp_path: Path) -> None:
    begun = []
    for head in ("random", "probe"):
        folder = tmp_path / head
        folder.mkdir()
        run = reward_run(base, folder, model={"head": head}, cache=str(tmp_path / "cache"))
        assert train_reward(run) is not None
        begun.append(history(Path(run.output))[0]["eval_heldout_accuracy"])
    assert begun[1] > 0.9
    assert begun[1] > begun[0]
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


def test_a_later_stage_keeps_the_head_it_has(base: Path, tmp_path: Path) -> None:
    begun = tiny.reward(tmp_path / "general", base, "general", seed=3)
    run = reward_run(
        base,
        tmp_path,
        model={"head": "probe", "start": str(begun.folder)},
        reading={"max_length": 256},
        cache=str(tmp_path / "cache"),
        optimisation={"max_steps": 1},
    )
    assert train_reward(run) is not None
    assert not (tmp_path / "cache").exists()


def test_sharded_weights_cannot_be_probed() -> None:
    raw = {"kind": "reward", "name": "a", "data": {"train": [{"path": "x"}]}, "model": {"head": "probe"}}
    resolve_recipe({**raw, "scale": {"zero": 2}})
    with pytest.raises(RecipeError, match=r"model\.head: probe needs whole weights on each rank"):
        resolve_recipe({**raw, "scale": {"zero": 3}})
