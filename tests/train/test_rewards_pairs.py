"""The pairwise model: its pairs and labels, the published start, both orders, figures, and a whole run."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scales import scale_of
from torch.nn import functional
from train.tiny_runs import history, reward_run
from transformers import AutoModelForCausalLM

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord, Record
from tureen_core.artifact import open_artifact
from tureen_core.base import load_tokenizer
from tureen_core.calibration import fit_temperature
from tureen_core.pair_texts import render_pair
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.rewards.pairs import PairMethod, compute_pair_metrics, label_pairs, remove_position_bias
from tureen_train.rewards.run import train_reward
from tureen_train.rewards.start import make_model

PROMPT = (user_turn("why do leaves fall?"),)
ANSWERS = tuple((assistant_turn(text),) for text in ("the quick brown fox", "the lazy dog", "the days grow short"))


def record(*scores: float, **meta: Any) -> Record:
    return Record(PROMPT, ANSWERS[: len(scores)], scores, "file:1", meta)


class Judge:
    """Makes a method, its recipe, and its model."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.renderer = Renderer(load_tokenizer(base), tiny.reading(base, eos="none"))

    def run(self, model: dict[str, Any] | None = None, **loss: Any) -> Any:
        return reward_run(
            self.base,
            self.folder,
            reading={"max_length": 256},
            loss={"method": "pair", **loss},
            model={"head": "tokens", **(model or {})},
        )

    def __call__(self, **loss: Any) -> PairMethod:
        return PairMethod(self.run(**loss), self.renderer)

    def batch(self, method: PairMethod, *records: Record) -> dict[str, torch.Tensor]:
        encoded = method.encode(records)
        return method.collate([encoded[index] for index in range(len(encoded))], encoded.width)


def texts_of(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["ids"], batch["mask"], strict=True)]


@pytest.fixture
def judge(base: Path, tmp_path: Path) -> Judge:
    return Judge(base, tmp_path)


# --------------------------------------------------------------------------- pairs and labels


@pytest.mark.parametrize("beside", [{"tools": ({"function": {"name": "f"}},)}, {"chat_template_kwargs": {"x": 1}}])
def test_tools_and_template_arguments_are_refused_by_name(judge: Judge, beside: dict[str, Any]) -> None:
    words = f"file:1: cannot be rendered: the text of a pair has no place for `{next(iter(beside))}`"
    with pytest.raises(BadRecord, match=words):
        judge().encode([replace(record(1, 0), **beside)])


def test_every_comparable_pair_is_judged_with_its_probability() -> None:
    assert label_pairs(record(2, 1, 0), soft=True, ties=False) == [((0, 1), 1.0), ((0, 2), 1.0), ((1, 2), 1.0)]
    assert label_pairs(record(0, 1, chosen_prob=0.8), soft=True, ties=False) == [((1, 0), 0.8)]
    assert label_pairs(record(0, 1, chosen_prob=0.8), soft=False, ties=False) == [((1, 0), 1.0)]
    assert label_pairs(record(0, 1, 1, chosen_prob=0.8), soft=True, ties=False) == [((1, 0), 1.0), ((2, 0), 1.0)]


def test_ties_are_left_out_or_as_likely_as_not() -> None:
    assert label_pairs(record(1, 1, 0), soft=True, ties=False) == [((0, 2), 1.0), ((1, 2), 1.0)]
    assert ((0, 1), 0.5) in label_pairs(record(1, 1, 0), soft=True, ties=True)
    assert label_pairs(record(math.nan, math.nan), soft=True, ties=True) == []


@pytest.mark.parametrize("known", [1.5, -0.1, "0.8", True, math.nan])
def test_what_is_no_probability_is_named(known: object) -> None:
    with pytest.raises(BadRecord, match="file:1: bad score: `chosen_prob` must be 0 to 1"):
        label_pairs(record(1, 0, chosen_prob=known), soft=True, ties=False)


def test_a_batch_has_every_pair_in_both_orders(judge: Judge) -> None:
    batch = judge.batch(judge(), record(1, 0), record(0, 1, chosen_prob=0.75))
    texts = texts_of(batch)
    orders = [(0, 1), (1, 0), (1, 0), (0, 1)]
    assert texts == [render_pair(judge.renderer, PROMPT, ANSWERS[i], ANSWERS[j]).ids for i, j in orders]
    assert batch["targets"].tolist() == [1.0, 0.75]
    assert judge().counts(batch).tolist() == [2]


def test_nothing_to_compare_is_refused_and_what_is_cut_is_counted(base: Path, tmp_path: Path) -> None:
    judge = Judge(base, tmp_path)
    with pytest.raises(RecipeError, match="no pair is left to compare"):
        judge().encode([record(1, 1)])
    judge.renderer = Renderer(load_tokenizer(base), tiny.reading(base, eos="none", max_length=70))
    assert judge().encode([record(1, 0)]).truncated == 1


# --------------------------------------------------------------------------- the published start


def two_token_log_odds(base: Path, ids: Iterable[list[int]]) -> list[float]:
    """The published verdict: softmax over the logits of A and B at the last position."""
    tokenizer = load_tokenizer(base)
    first, second = (tokenizer.encode(text, add_special_tokens=False)[0] for text in "AB")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = [model(torch.tensor([each])).logits[0, -1, [first, second]].double() for each in ids]
    return [float(torch.logit(functional.softmax(each, 0)[0])) for each in logits]


@pytest.mark.parametrize("lora", [None, {"rank": 4, "targets": ["q_proj"]}], ids=["full", "lora"])
def test_before_training_it_is_the_bases_softmax_over_two_tokens(judge: Judge, lora: Any) -> None:
    method = judge()
    model = make_model(judge.run(model={"lora": lora}), judge.base).eval()
    batch = judge.batch(method, record(1, 0), record(2, 1, 0))
    outcome = method.loss(model, batch, method.counts(batch))
    texts = texts_of(batch)
    expected = two_token_log_odds(judge.base, texts)
    assert outcome.predictions.T.flatten().tolist() == pytest.approx(expected, abs=1e-5)


# --------------------------------------------------------------------------- the loss


def test_both_orders_are_a_mean_and_one_is_drawn_by_the_seed(judge: Judge) -> None:
    records = [record(1, 0, chosen_prob=0.9), record(0, 1), record(2, 1, 0)]
    method, both = judge(), judge(sides="both")
    model = make_model(judge.run(), judge.base)
    batch = judge.batch(method, *records)
    logits = method.loss(model.eval(), batch, method.counts(batch)).predictions.double()
    p = batch["targets"].double()
    forward = functional.binary_cross_entropy_with_logits(logits[:, 0], p, reduction="none")
    backward = functional.binary_cross_entropy_with_logits(logits[:, 1], 1 - p, reduction="none")

    whole = both.loss(model.train(), judge.batch(both, *records), both.counts(batch))
    assert float(whole.loss.detach()) == pytest.approx(float((forward + backward).mean() / 2), abs=1e-6)

    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outcome = method.loss(model.train(), batch, method.counts(batch))
        drawn = ~outcome.predictions.isnan()
        assert drawn.sum(1).tolist() == [1] * 5
        expected = torch.where(drawn[:, 0], forward, backward).mean()
        assert float(outcome.loss.detach()) == pytest.approx(float(expected), abs=1e-6)
        seen.append(drawn[:, 0].tolist())
    assert seen[0] == seen[1] != seen[2]


def test_a_whole_steps_count_divides_each_of_its_batches(judge: Judge) -> None:
    records = [record(1, 0), record(0, 1), record(2, 1, 0)]
    method = judge(sides="both")
    model = make_model(judge.run(), judge.base).train()
    together = judge.batch(method, *records)
    count = method.counts(together)
    parts = [method.loss(model, judge.batch(method, each), count).loss.item() for each in records]
    assert sum(parts) == pytest.approx(method.loss(model, together, count).loss.item(), abs=1e-6)


# --------------------------------------------------------------------------- figures


def test_verdicts_are_the_mean_of_both_orders_and_a_half_is_half_right() -> None:
    logits = np.array([[2.0, -1.0], [1.0, 3.0], [0.5, 0.5], [-1.0, -3.0], [4.0, 0.0]])
    targets = np.array([1.0, 1.0, 1.0, 0.9, 0.5])
    assert remove_position_bias(logits, targets).tolist() == [1.5, -1.0, 0.0, 1.0]
    figures = compute_pair_metrics(logits, targets)
    assert figures["pairs"] == 4
    assert figures["accuracy"] == (1 + 0 + 0.5 + 1) / 4
    assert figures["flips"] == 3 / 5
    assert figures["first_logit"] == pytest.approx(logits.mean())
    assert figures["margin"] == pytest.approx((1.5 - 1 + 0 + 1) / 4)


def test_a_probability_below_a_half_names_the_other_answer() -> None:
    assert remove_position_bias(np.array([[2.0, -1.0]]), np.array([0.2])).tolist() == [-1.5]


def test_ties_alone_have_no_accuracy() -> None:
    figures = compute_pair_metrics(np.array([[1.0, 1.0]]), np.array([0.5]))
    assert figures["pairs"] == 0
    assert math.isnan(figures["accuracy"])
    assert figures["flips"] == 1


# --------------------------------------------------------------------------- a whole run


@pytest.mark.parametrize("sides", ["random", "both"])
def test_a_run_learns_forgets_its_lean_and_is_proved(base: Path, tmp_path: Path, sides: str) -> None:
    run = reward_run(
        base,
        tmp_path,
        reading={"max_length": 256},
        loss={"method": "pair", "sides": sides},
        model={"head": "tokens"},
        data={"pairs_per_prompt": 1},
        optimisation={"max_steps": 40, "learning_rate": 1e-2},
        watch={"log_every": 10},
    )
    artifact = train_reward(run)
    assert artifact is not None
    manifest = open_artifact(artifact.folder).manifest
    assert (manifest.input, manifest.reading.eos) == ("pair", "none")
    figures = manifest.training.metrics["heldout"]
    before = next(each for each in history(Path(run.output)) if "eval_heldout_accuracy" in each)
    assert figures["accuracy"] > 0.9
    assert figures["flips"] <= before["eval_heldout_flips"]
    assert scale_of(manifest.objectives[0]).temperature > 0

    probe, turned = manifest.probes[:2]
    assert (probe.messages, probe.rival) == (turned.rival, turned.messages)
    again = RewardReader(artifact.folder, base, manifest.reading).score_probes(manifest.probes, "pair")
    assert [row[0] for row in again] == pytest.approx([each.scores["foxes"] for each in manifest.probes], abs=1e-6)


def test_calibration_is_that_of_the_log_odds_without_the_lean(judge: Judge, tmp_path: Path) -> None:
    logits, targets = np.array([[2.0, -1.0], [1.0, 3.0], [3.0, 1.0]]), np.array([1.0, 1.0, 1.0])
    (objective,) = judge().calibrate(logits, [targets], tmp_path)
    assert scale_of(objective).temperature == fit_temperature([1.5, -1.0, 1.0])
    assert scale_of(objective).mean == pytest.approx(logits.mean())
    assert (tmp_path / "reliability.png").is_file()
    assert judge().objectives()[0].name == "foxes"
