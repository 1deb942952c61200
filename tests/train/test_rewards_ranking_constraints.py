"""Ranking under PCRM's constraints: what recipes refuse, the loss of whole batches by hand, and whole runs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from torch.nn.functional import softplus
from train import tiny_encoder
from train.test_rewards_run import history_of, stop_after
from train.tiny_runs import history, reward_run

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Model, RecipeError
from tureen_train.networks.reward_model import load_reward_model
from tureen_train.networks.sentence_encoder import open_encoder
from tureen_train.rewards.ranking import RankingMethod
from tureen_train.rewards.run import train_reward

NAN = math.nan
SCORES = [(1.0, 0.0), (2.0, 1.0, 0.0, 0.0), (1.0, 1.0), (0.5, NAN, 0.0)]
COSINE = {"prior": "cosine", "beta1": 8, "beta3": -6.5}
LENGTH = {"prior": "length_ratio", "beta1": 1.5}
PRIORS: list[dict[str, Any]] = [
    {"prior": "fixed", "value": 1.5},
    {"prior": "random", "low": 1, "high": 2},
    LENGTH,
    COSINE,
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.bert(tmp_path_factory.mktemp("bert"))


def records(*scores: tuple[float, ...], encoder: str = "") -> list[Record]:
    """Prompts with answers of growing length, which carry cosines that fall with it."""
    made = []
    for number, each in enumerate(scores):
        cosine = [[1 - 0.2 * abs(i - j) for j in range(len(each))] for i in range(len(each))]
        made.append(
            Record(
                ({"role": "user", "content": f"prompt {number}"},),
                tuple(({"role": "assistant", "content": "fox " * (1 + 2 * n) + "jumps"},) for n in range(len(each))),
                each,
                meta={"similarity": {"cosine": cosine, "encoder": encoder}},
            )
        )
    return made


def by(prior: dict[str, Any], bert: Path) -> dict[str, Any]:
    """The prior, cosines by the tiny encoder."""
    return {**prior, "encoder": str(bert)} if prior["prior"] == "cosine" else prior


class Bench:
    """A method, a model and a batch of one recipe's loss."""

    def __init__(self, base: Path, folder: Path, **loss: Any) -> None:
        encoder = (loss.get("constraint") or {}).get("encoder")
        self.renderer = Renderer(load_tokenizer(base), tiny.reading(base))
        self.method = RankingMethod(reward_run(base, folder, loss=loss), self.renderer)
        torch.manual_seed(0)
        self.model = load_reward_model(base, Model(lora=None, precision="fp32"), self.renderer.reading).eval()
        self.encoded = self.method.encode(records(*SCORES, encoder=open_encoder(encoder).name if encoder else ""))
        self.batch = self.method.collate(self.encoded.items, 5)

    def loss(self) -> float:
        found = self.method.loss(self.model, self.batch, self.method.counts(self.batch))
        assert set(found.terms) >= {"ranking"}
        assert float(torch.stack(list(found.terms.values())).sum()) == pytest.approx(float(found.loss.detach()))
        return float(found.loss.detach())

    def rewards(self, item: int) -> list[Tensor]:
        """Of every token of an item's answers, each text alone."""
        rows = []
        for ids in self.encoded[item].ids:
            whole = torch.tensor([ids])
            with torch.no_grad():
                rows.append(self.model.score(self.model.model(input_ids=whole).last_hidden_state)[0, :, 0])
        return rows

    def pairs(self) -> list[tuple[int, int, int]]:
        """(item, better, worse) of every comparable pair."""
        return [(n, i, j) for n, record in enumerate(records(*SCORES)) for i, j in record.pairs]


@pytest.fixture
def cap_of(base: Path) -> Any:
    """δ of two answers, worked out from what the records say."""

    def cap(prior: dict[str, Any], bench: Bench, item: int, better: int, worse: int) -> float:
        if prior["prior"] == "fixed":
            return float(prior["value"])
        if prior["prior"] == "random":
            return float(prior["low"] + prior["high"]) / 2
        if prior["prior"] == "cosine":
            s = (math.pi - math.acos(1 - 0.2 * abs(better - worse))) / math.pi
            return float(8 / (s + 0.001) - 6.5)
        one, other = (bench.encoded[item].ids[place] for place in (better, worse))
        start = next((t for t, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        lengths = sorted((len(one) - start, len(other) - start))
        return min(50.0, float(1.5 / (lengths[0] / lengths[1] + 0.001)))

    return cap


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior["prior"])
def test_each_pairs_gap_is_held_by_its_own_cap(
    base: Path, tmp_path: Path, bert: Path, prior: dict[str, Any], cap_of: Any
) -> None:
    bench = Bench(base, tmp_path, constraint=by(prior, bert), center=0.3)
    losses = []
    for item, better, worse in bench.pairs():
        rewards = [each[-1] for each in bench.rewards(item)]
        gap, delta = rewards[better] - rewards[worse], cap_of(prior, bench, item, better, worse)
        losses.append(softplus(-gap) + softplus(gap - delta) + 0.3 * (rewards[better] + rewards[worse]) ** 2)
    assert len(losses) == 7
    assert bench.loss() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("padding", ["hold", "published"])
def test_a_span_compares_every_token_after_the_divergence(
    base: Path, tmp_path: Path, padding: str, cap_of: Any
) -> None:
    bench = Bench(base, tmp_path, constraint=LENGTH, read="span", span_padding=padding)
    width = bench.batch["input_ids"].shape[1]
    with torch.no_grad():
        output = bench.model(bench.batch["input_ids"], bench.batch["attention_mask"], everywhere=True)
    assert output.token_rewards.shape == bench.batch["input_ids"].shape
    first = 0
    losses = []
    for item, record in enumerate(records(*SCORES)):
        texts = bench.encoded[item].ids
        padded = output.token_rewards[first : first + len(texts)]
        alone = bench.rewards(item)
        first += len(texts)
        for better, worse in record.pairs:
            one, other = texts[better], texts[worse]
            start = next(t for t, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            span = torch.arange(start, max(len(one), len(other)))
            if padding == "hold":
                held = [torch.cat([row, row[-1:].expand(width - len(row))]) for row in alone]
                gaps = held[better][span] - held[worse][span]
            else:
                gaps = padded[better][span] - padded[worse][span]
            losses.append((softplus(-gaps) + softplus(gaps - cap_of(LENGTH, bench, item, better, worse))).mean())
    assert bench.loss() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_without_a_constraint_a_batch_carries_no_caps(base: Path, tmp_path: Path) -> None:
    bench = Bench(base, tmp_path)
    assert bench.method.labels == ("scores", "lengths")
    assert "caps" not in bench.batch


def test_caps_lie_in_a_table_of_every_two_answers(base: Path, tmp_path: Path, bert: Path) -> None:
    bench = Bench(base, tmp_path, constraint=by(COSINE, bert))
    caps = bench.batch["caps"]
    assert caps.shape == (4, 5, 5)
    assert (~caps.isnan()).flatten(1).sum(1).tolist() == [4, 16, 4, 9]
    assert torch.equal(caps[1].nan_to_num(-1), caps[1].T.nan_to_num(-1))
    assert caps[0].diagonal()[:2].tolist() == pytest.approx([8 / 1.001 - 6.5] * 2)
    assert bench.method.labels == ("scores", "lengths", "caps")


def test_random_caps_are_drawn_anew_in_training_and_are_their_mean_in_judging(base: Path, tmp_path: Path) -> None:
    bench = Bench(base, tmp_path, constraint={"prior": "random", "low": 0.1, "high": 5})
    fixed = Bench(base, tmp_path, constraint={"prior": "fixed", "value": 2.55})
    assert bench.loss() == bench.loss() == pytest.approx(fixed.loss())
    bench.model.train()
    torch.manual_seed(1)
    first, second = bench.loss(), bench.loss()
    assert first != second
    torch.manual_seed(1)
    assert bench.loss() == first


# --------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        (
            {"prior": "cosine", "beta1": 20, "beta3": -20},
            r"20 / \(1 \+ 0.001\) \+ -20 = -0.01998, and must be positive",
        ),
        ({"prior": "length_ratio", "beta1": 6, "ceiling": 5}, r"loss.constraint: ceiling: 5 is below the smallest cap"),
        ({"prior": "random", "low": 3, "high": 2}, "loss.constraint: low: 3 is above high, 2"),
        ({"prior": "fixed", "value": 0}, "loss.constraint.value"),
        ({"prior": "fixed", "beta1": 3}, "loss.constraint.beta1"),
        ({"prior": "cosine", "beta1": 0}, "loss.constraint.beta1"),
        ({"prior": "margin"}, "loss.constraint"),
        ({}, "loss.constraint"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    base: Path, tmp_path: Path, constraint: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        reward_run(base, tmp_path, loss={"constraint": constraint})


# --------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior["prior"])
def test_a_run_tells_how_its_gaps_stand_to_their_caps(
    base: Path, tmp_path: Path, bert: Path, prior: dict[str, Any]
) -> None:
    read = "span" if prior["prior"] in ("random", "length_ratio") else "last"
    loss = {"constraint": by(prior, bert), "read": read}
    run = reward_run(base, tmp_path, loss=loss, watch={"eval_every": 2}, cache=str(tmp_path / "cache"))
    artifact = train_reward(run)
    assert artifact is not None
    figures = artifact.manifest.training.metrics["heldout"]
    assert {"margin", "cap", "over_cap", "reward_std"} <= figures.keys()
    assert figures["cap"] is not None
    assert 1 < figures["cap"] < 10
    assert 0 <= (figures["over_cap"] or 0) <= 1
    entries = history(Path(run.output))
    assert [entry["step"] for entry in entries if "eval_heldout_cap" in entry] == [0, 2, 4, 4]
    assert all("loss_constraint" in entry for entry in entries if "loss" in entry)
    assert (tmp_path / "cache" / "similarity").is_dir() == (prior["prior"] == "cosine")


def test_a_constraint_holds_the_scale_that_ranking_alone_lets_grow(base: Path, tmp_path: Path) -> None:
    margins = []
    for name, loss in (("free", {}), ("held", {"constraint": {"prior": "fixed", "value": 1.0}})):
        run = reward_run(base, tmp_path, loss=loss, optimisation={"max_steps": 40}, output=str(tmp_path / name))
        artifact = train_reward(run)
        assert artifact is not None
        figures = artifact.manifest.training.metrics["heldout"]
        assert (figures["accuracy"] or 0) > 0.9
        margins.append(figures["margin"] or NAN)
    assert margins[0] > 2
    assert margins[1] == pytest.approx(0.5, abs=0.3)


def test_a_resumed_run_draws_the_caps_of_the_straight_run(base: Path, tmp_path: Path) -> None:
    run = reward_run(
        base,
        tmp_path,
        loss={"constraint": {"prior": "random", "low": 0.5, "high": 9}},
        optimisation={"max_steps": 6},
        watch={"save_every": 3, "keep": 5, "eval_at_start": False},
    )
    expected = train_reward(run)
    before = [entry["loss_constraint"] for entry in history(Path(run.output)) if "loss" in entry]
    stop_after(Path(run.output), 3)
    again = train_reward(run, resume=True)
    assert expected is not None
    assert again is not None
    assert history_of(expected) == pytest.approx(history_of(again), abs=1e-5)
    after = [entry["loss_constraint"] for entry in history(Path(run.output)) if "loss" in entry]
    assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("padding", ["hold", "published"])
def test_packing_changes_nothing_of_a_span(base: Path, tmp_path: Path, padding: str) -> None:
    losses = []
    for packing in ("prompts", "off"):
        run = reward_run(
            base,
            tmp_path,
            loss={"constraint": LENGTH, "read": "span", "span_padding": padding, "center": 0.1},
            scale={"packing": packing},
            watch={"eval_at_start": False},
            output=str(tmp_path / packing),
        )
        train_reward(run)
        losses.append([entry["loss"] for entry in history(Path(run.output)) if "loss" in entry])
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
