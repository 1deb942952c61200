"""The trainer: its loss, its evaluation of ragged prompts, and that both are what the pure functions say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from train.tiny_runs import reward_run
from transformers import TrainingArguments

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Model
from tureen_train.measures.metrics import compute_ranking_metrics
from tureen_train.networks.likelihood import compute_token_nll
from tureen_train.networks.reward_model import load_reward_model
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.losses import compute_imitation_loss, compute_ranking_loss, normalise_scores
from tureen_train.rewards.ranking import RankingMethod
from tureen_train.rewards.trainer import RewardTrainer

NAN = math.nan
SCORES = [(1.0, 0.0), (2.0, 1.0, 0.0, 0.0), (1.0, 1.0), (0.5, NAN, 0.0), (1.0,), (0.0, 0.0, 1.0)]


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base))


def records(*scores: tuple[float, ...]) -> list[Record]:
    """Prompts with answers of growing length."""
    return [
        Record(
            ({"role": "user", "content": f"prompt {number}"},),
            tuple(({"role": "assistant", "content": "fox " * (1 + n)},) for n in range(len(each))),
            each,
        )
        for number, each in enumerate(scores)
    ]


def trainer(
    base: Path,
    folder: Path,
    renderer: Renderer,
    train: EncodedRecords,
    sets: dict[str, EncodedRecords] | None = None,
    loss: dict[str, Any] | None = None,
    packing: Any = "off",
    attention: Any = "sdpa",
    **settings: Any,
) -> RewardTrainer:
    width = max(each.width for each in [train, *(sets or {}).values()])
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    return RewardTrainer(
        model=load_reward_model(base, Model(lora=None, precision="fp32", attention=attention), renderer.reading),
        args=TrainingArguments(
            output_dir=str(folder),
            label_names=["scores", "lengths"],
            remove_unused_columns=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            **{"per_device_eval_batch_size": 4, "learning_rate": 1e-3, **settings},
        ),
        train_dataset=train,
        eval_dataset=sets,
        processing_class=renderer.tokenizer,
        method=RankingMethod(reward_run(base, folder, loss=loss or {}), renderer),
        width=width,
        packing=packing,
    )


def rewards_one_by_one(model: Any, encoded: EncodedRecords) -> list[list[float]]:
    """No batch, no padding, no table."""
    with torch.no_grad():
        return [
            [
                float(model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()).rewards)
                for ids in item.ids
            ]
            for item in encoded.items
        ]


def test_evaluation_of_ragged_prompts_equals_the_direct_computation(
    base: Path, tmp_path: Path, renderer: Renderer
) -> None:
    encoded = EncodedRecords(records(*SCORES), renderer)
    one = trainer(base, tmp_path, renderer, encoded, {"ragged": encoded})
    prediction = one.predict(encoded)
    direct = rewards_one_by_one(one.model.eval(), encoded)
    assert prediction.predictions.shape == (6, 4)
    for row, expected in zip(prediction.predictions, direct, strict=True):
        assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
        assert np.isnan(row[len(expected) :]).all()

    wide = [each + [NAN] * (4 - len(each)) for each in direct]
    scores = [[*each, *[NAN] * (4 - len(each))] for each in SCORES]
    lengths = [[len(ids) for ids in item.ids] + [NAN] * (4 - len(item.ids)) for item in encoded.items]
    expected_figures = compute_ranking_metrics(wide, scores, lengths).plain()
    found = one.evaluate()
    for name, value in expected_figures.items():
        assert found[f"eval_ragged_{name}"] == pytest.approx(value, abs=1e-4), name


def test_several_files_are_judged_by_name_also_at_the_start(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    train = EncodedRecords(records(*SCORES[:2]), renderer)
    sets = {"pairs": train, "lists": EncodedRecords(records(*SCORES), renderer)}
    one = trainer(
        base,
        tmp_path,
        renderer,
        train,
        sets,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=2,
        max_steps=4,
        per_device_train_batch_size=2,
        save_strategy="no",
    )
    one.train()
    for name in sets:
        steps = [entry["step"] for entry in one.state.log_history if f"eval_{name}_accuracy" in entry]
        assert steps == [0, 2, 4]


def test_equal_rewards_count_one_half(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    encoded = EncodedRecords(records(*SCORES), renderer)
    one = trainer(base, tmp_path, renderer, encoded, {"all": encoded})
    with torch.no_grad():
        one.model.score.weight.zero_()
    found = one.evaluate()
    assert found["eval_all_accuracy"] == 0.5
    assert found["eval_all_margin"] == 0
    assert found["eval_all_loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("prompt", [False, True])
def test_the_loss_is_ranking_plus_weighted_imitation(
    base: Path, tmp_path: Path, renderer: Renderer, prompt: bool
) -> None:
    loss = {"lm_coefficient": 0.3, "lm_threshold": 0.4, "lm_prompt": prompt}
    encoded = EncodedRecords(records(*SCORES), renderer)
    one = trainer(base, tmp_path, renderer, encoded, loss=loss)
    one.model.eval()
    batch = one.data_collator(encoded.items)
    found, outputs = one.compute_loss(one.model, batch, return_outputs=True)

    direct = rewards_one_by_one(one.model, encoded)
    flat = torch.tensor([reward for row in direct for reward in row])
    scores = torch.tensor([score for row in SCORES for score in row])
    group = torch.tensor([number for number, row in enumerate(SCORES) for _ in row])
    likely = []
    for item in encoded.items:
        for ids, start, score in zip(item.ids, item.starts, normalise_scores(item.scores), strict=True):
            whole = torch.tensor([ids])
            with torch.no_grad():
                logits = one.model.lm_head(one.model.model(input_ids=whole).last_hidden_state)
            counted = torch.arange(len(ids))[None] >= (0 if prompt else start)
            if score > 0.4:
                likely.append(float(compute_token_nll(logits, whole, counted)))
    lm = compute_imitation_loss(torch.tensor(likely), torch.ones(len(likely)))
    expected = compute_ranking_loss(flat, scores, group) + 0.3 * lm
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert len(likely) == 8  # the best of each, the half as good one, and both texts of the tie
    laid = outputs["predictions"]
    assert laid[1].tolist() == pytest.approx(direct[1], abs=1e-5)
    assert not laid.requires_grad


@pytest.mark.parametrize("packing", ["prompts", "off"])
def test_how_a_step_is_split_changes_nothing(base: Path, tmp_path: Path, renderer: Renderer, packing: Any) -> None:
    """Ragged prompts: a mean of the micro-batches' means would weigh their pairs and imitated texts unlike."""
    encoded = EncodedRecords(records(*SCORES, (3.0, 2.0, 1.0, 0.0), (1.0, 0.0)), renderer)
    weights, losses = [], []
    for size, steps in ((8, 1), (4, 2), (2, 4), (3, 3)):  # the last step's micro-batches are fewer or smaller
        one = trainer(
            base,
            tmp_path / str(size),
            renderer,
            encoded,
            loss={"lm_coefficient": 0.3, "lm_threshold": 0.4, "center": 0.01},
            packing=packing,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=3,
            save_strategy="no",
            logging_steps=1,
            optim="sgd",
            learning_rate=0.1,
        )
        one.train()
        weights.append({name: weight.detach().clone() for name, weight in one.model.named_parameters()})
        losses.append([{key: entry[key] for key in entry if key.startswith("loss")} for entry in one.state.log_history])
    for other, logged in zip(weights[1:], losses[1:], strict=True):
        assert all(torch.allclose(weights[0][name], other[name], atol=1e-5) for name in other)
        for step, expected in zip(logged[:3], losses[0], strict=False):
            assert step == pytest.approx(expected, abs=1e-5)
    assert set(losses[0][0]) == {"loss", "loss_ranking", "loss_imitation", "loss_centering"}
    first = losses[0][0]
    assert first["loss"] == pytest.approx(sum(first[name] for name in first if name != "loss"), abs=1e-5)
    assert losses[0][2]["loss"] < losses[0][0]["loss"]


def test_the_logged_loss_is_a_mean_over_the_steps_since_the_last(
    base: Path, tmp_path: Path, renderer: Renderer
) -> None:
    encoded = EncodedRecords(records(*SCORES), renderer)
    settings: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 2, "save_strategy": "no"}
    found = []
    for every in (1, 4):
        one = trainer(base, tmp_path / str(every), renderer, encoded, logging_steps=every, **settings)
        one.train()
        found.append([entry["loss_ranking"] for entry in one.state.log_history if "loss_ranking" in entry])
    assert found[1] == pytest.approx([sum(found[0]) / 4], abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_the_judged_loss_is_a_mean_over_the_files_pairs(
    base: Path, tmp_path: Path, renderer: Renderer, size: int
) -> None:
    encoded = EncodedRecords(records(*SCORES), renderer)
    one = trainer(base, tmp_path, renderer, encoded, {"all": encoded}, per_device_eval_batch_size=size)
    direct = rewards_one_by_one(one.model.eval(), encoded)
    flat = torch.tensor([reward for row in direct for reward in row])
    scores = torch.tensor([score for row in SCORES for score in row])
    group = torch.tensor([number for number, row in enumerate(SCORES) for _ in row])
    expected = float(compute_ranking_loss(flat, scores, group))
    assert one.evaluate()["eval_all_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_model_that_cannot_be_packed_is_padded_and_said_to_be(
    base: Path, tmp_path: Path, renderer: Renderer, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = EncodedRecords(records(*SCORES), renderer)
    with caplog.at_level("INFO", logger="tureen.train"):
        one = trainer(base, tmp_path, renderer, encoded, attention="eager", packing="prompts")
    assert "batches are padded, and no prompt is shared: model.attention is eager" in caplog.text
    assert "packing" not in one.data_collator(encoded.items)
    assert "packing" in trainer(base, tmp_path, renderer, encoded, packing="texts").data_collator(encoded.items)


def test_a_diverged_loss_never_reaches_the_weights(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    encoded = EncodedRecords(records((1.0, 0.0)), renderer)
    one = trainer(base, tmp_path, renderer, encoded)
    with torch.no_grad():
        one.model.score.weight.fill_(math.inf)
    with pytest.raises(FloatingPointError):
        one.compute_loss(one.model, one.data_collator(encoded.items))
