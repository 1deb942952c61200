"""Our DPO trainer against TRL's on the same rows, its constraints, its reference, and how batches may be split."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset
from peft import get_peft_model
from train.tiny_runs import LORA, history
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import DpoPolicy, Lora, Model, RecipeError
from tureen_train.config.ranking import FixedCap, LengthCap, RandomCap
from tureen_train.networks.answer_batch import Layout
from tureen_train.networks.packing import switch_to_packed
from tureen_train.networks.policy_model import load_policy_model
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.losses import compute_cap_losses, compute_preference_losses
from tureen_train.policies.preference_trainer import (
    REFERENCES,
    PreferenceLearner,
    PreferenceTrainer,
    read_references,
    write_references,
)
from tureen_train.policies.preferences import Preferences, encode_preferences, encode_training_pairs
from tureen_train.runs.history import History

STEPS = 4


def records(count: int, first: int = 0) -> list[Record]:
    """Prompts with answers of unlike lengths; some records have two pairs with one prompt."""
    return [
        Record(
            ({"role": "user", "content": f"prompt {number}"},),
            tuple(
                ({"role": "assistant", "content": "fox jumps " * (1 + (number + n) % 3) + str(n)},)
                for n in range(2 + number % 2)
            ),
            (1.0, 0.0, 0.5)[: 2 + number % 2],
        )
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base))


def load(base: Path, lora: bool = True, dropout: float = 0.0) -> Any:
    settings = Model(lora=Lora(**LORA, dropout=dropout) if lora else None, precision="fp32")
    model = load_policy_model(base, settings)
    if settings.lora is not None:
        torch.manual_seed(3)
        model = get_peft_model(model, make_lora_config(settings.lora, model, task="CAUSAL_LM"))
    return model


def move(model: Any) -> None:
    """Move the policy from its reference. TRL keeps a copy of an adapter beside it, which stays."""
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(weight, std=0.2)


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "remove_unused_columns": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "report_to": "none",
        "learning_rate": 5e-3,
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 64,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 7,
        "data_seed": 7,
        **changes,
    }


def ours(
    model: Any,
    folder: Path,
    train: Preferences,
    held: Preferences | None = None,
    policy: DpoPolicy | None = None,
    layout: Layout = "off",
    resumed: bool = False,
    **changes: Any,
) -> PreferenceTrainer:
    folder.mkdir(exist_ok=True)
    assert layout == "off" or switch_to_packed(model, 256)
    return PreferenceTrainer(
        model=model,
        args=TrainingArguments(**arguments(folder, **changes), label_names=list(PreferenceLearner.labels)),
        train_dataset=train,
        eval_dataset=None if held is None else {"held": held},
        policy=policy or DpoPolicy(),
        layout=layout,
        pad=0,
        references=folder / REFERENCES,
        known=resumed,
        callbacks=[History(folder / "history.jsonl")],
    )


class EncodedTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows of ids that are made already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def theirs(base: Path, model: Any, folder: Path, train: Preferences, held: Preferences, **changes: Any) -> Any:
    def rows(pairs: Preferences) -> Dataset:
        return Dataset.from_list(
            [
                {
                    "prompt_ids": list(item.chosen.ids[: item.chosen.start]),
                    "chosen_ids": list(item.chosen.answer),
                    "rejected_ids": list(item.rejected.answer),
                }
                for item in pairs.items
            ]
        )

    return EncodedTrainer(
        model=model,
        args=DPOConfig(**arguments(folder, bf16=False, gradient_checkpointing=False), max_length=None, **changes),
        train_dataset=rows(train),
        eval_dataset=rows(held),
        processing_class=load_tokenizer(base),
    )


TRLS = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}


@pytest.mark.parametrize("layout", ["off", "prompts"])
@pytest.mark.parametrize("sft", [0.0, 0.7])
def test_a_run_has_the_losses_and_figures_of_trls(
    base: Path, tmp_path: Path, renderer: Renderer, sft: float, layout: Any
) -> None:
    train, held = (encode_preferences(records(*each), renderer) for each in ((12,), (5, 50)))
    policy = DpoPolicy(beta=0.3, sft=sft)
    mine = ours(load(base), tmp_path / "ours", train, held, policy, layout)
    mine.train()
    own = mine.evaluate()
    loss = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, sft]} if sft else {}
    trls = theirs(base, load(base), tmp_path / "theirs", train, held, beta=0.3, **loss)
    trls.train()
    trls.evaluate()
    steps = [[entry for entry in each.state.log_history if "loss" in entry] for each in (mine, trls)]
    assert [entry["step"] for entry in steps[0]] == list(range(1, STEPS + 1))
    assert steps[0][-1]["loss"] < steps[0][0]["loss"]
    for found, expected in zip(*steps, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], abs=1e-4)
        for name, key in TRLS.items():
            if name == "accuracy" and found["step"] == 1:
                continue  # all gaps are 0 but for rounding: TRL counts ties as wrong
            assert found[name] == pytest.approx(expected[key], abs=1e-5), name
    last = next(entry for entry in reversed(trls.state.log_history) if "eval_loss" in entry)
    assert own["eval_held_loss"] == pytest.approx(last["eval_loss"], abs=1e-5)
    for name, key in TRLS.items():
        assert own[f"eval_held_{name}"] == pytest.approx(last[f"eval_{key}"], abs=1e-5), name


def test_label_smoothing_mixes_trls_two_losses(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    """TRL's ``robust`` is ((1 − ε) A − ε B) / (1 − 2 ε), where A is its ``sigmoid`` and B is A of the swapped pair."""
    pairs = encode_preferences(records(6), renderer)
    smoothing, found = 0.2, {}
    for kind in ("sigmoid", "robust"):
        model = load(base)
        trainer = theirs(
            base,
            model,
            tmp_path / kind,
            pairs,
            pairs,
            loss_type=[kind],
            label_smoothing=smoothing if kind == "robust" else 0,
        )
        move(model)
        found[kind] = float(trainer.compute_loss(model, trainer.data_collator(list(trainer.train_dataset))).detach())
    plain = found["sigmoid"]
    swapped = ((1 - smoothing) * plain - (1 - 2 * smoothing) * found["robust"]) / smoothing
    mine = prepared(load(base), tmp_path / "ours", pairs, DpoPolicy(label_smoothing=smoothing))
    own = float(mine.compute_loss(mine.model, mine.data_collator(list(pairs))).detach())  # type: ignore[call-overload]
    assert own == pytest.approx((1 - smoothing) * plain + smoothing * swapped, abs=1e-5)
    assert own != pytest.approx(plain, abs=1e-2)


def prepared(model: Any, folder: Path, pairs: Preferences, policy: DpoPolicy, layout: Layout = "off") -> Any:
    """A trainer whose reference is computed and whose policy has moved since."""
    trainer: Any = ours(model, folder, pairs, policy=policy, layout=layout)
    trainer._prepare_references()
    move(model)
    model.train()
    return trainer


@pytest.mark.parametrize("constraint", [FixedCap(prior="fixed", value=0.5), LengthCap(prior="length_ratio", beta1=2)])
def test_a_constraint_adds_its_cap_in_training_only(
    base: Path, tmp_path: Path, renderer: Renderer, constraint: Any
) -> None:
    policy = DpoPolicy(beta=0.3, label_smoothing=0.1, constraint=constraint)
    pairs = encode_training_pairs(records(6), renderer, policy, tmp_path)
    trainer = prepared(load(base), tmp_path, pairs, policy)
    batch = trainer.data_collator([pairs[place] for place in range(len(pairs))])
    gaps = read_gaps(trainer.model, pairs, 0.3)
    caps = torch.tensor([item.cap for item in pairs.items]).double()
    plain = compute_preference_losses(gaps, 0.1).mean()
    expected = plain + compute_cap_losses(gaps, caps, 0.1).mean()
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(float(expected), abs=1e-5)
    trainer.model.eval()
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(float(plain), abs=1e-5)


def read_gaps(model: Any, pairs: Preferences, beta: float) -> torch.Tensor:
    """The gaps of the implicit rewards in float64, one text at a time, the reference by the bare base."""

    def logprob(answer: Any) -> torch.Tensor:
        table = torch.log_softmax(model(input_ids=torch.tensor([answer.ids])).logits[0].double(), -1)
        return sum(table[place - 1, answer.ids[place]] for place in range(answer.start, len(answer.ids)))  # type: ignore[return-value]

    gaps = []
    with torch.no_grad():
        for item in pairs.items:
            moved = logprob(item.chosen) - logprob(item.rejected)
            with model.disable_adapter():
                still = logprob(item.chosen) - logprob(item.rejected)
            gaps.append(beta * (moved - still))
    return torch.stack(gaps)


def test_random_caps_are_drawn_for_each_pair_and_step(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    policy = DpoPolicy(constraint=RandomCap(prior="random", low=0.1, high=3.0))
    pairs = encode_training_pairs(records(4), renderer, policy, tmp_path)
    trainer = prepared(load(base), tmp_path, pairs, policy)
    batch = trainer.data_collator([pairs[place] for place in range(len(pairs))])
    torch.manual_seed(11)
    caps = 0.1 + 2.9 * torch.rand(len(pairs))
    gaps = read_gaps(trainer.model, pairs, 0.1)
    expected = float((compute_preference_losses(gaps) + compute_cap_losses(gaps, caps.double())).mean())
    torch.manual_seed(11)
    first, second = (float(trainer.compute_loss(trainer.model, batch).detach()) for _ in range(2))
    assert first == pytest.approx(expected, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-4)


def test_a_steps_loss_does_not_depend_on_its_micro_batches(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    pairs = encode_preferences(records(12), renderer)
    policy, logs = DpoPolicy(sft=0.5), []
    for name, split in {"whole": (4, 1), "split": (1, 4)}.items():
        batch, accumulation = split
        ours(
            load(base),
            tmp_path / name,
            pairs,
            policy=policy,
            layout="prompts",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
        ).train()
        logs.append([entry for entry in history(tmp_path / name) if "loss" in entry])
    for whole, split in zip(*logs, strict=True):
        for key in ("loss", "loss_preference", "loss_sft", "accuracy", "margin", "grad_norm"):
            assert split[key] == pytest.approx(whole[key], abs=1e-4), key


@pytest.mark.parametrize("lora", [True, False])
def test_the_reference_is_the_policy_at_the_start(base: Path, tmp_path: Path, renderer: Renderer, lora: bool) -> None:
    """Also where it is no longer the base: an adapter that goes on, or whole weights. Dropout is off meanwhile."""
    pairs = encode_preferences(records(6), renderer)
    model = load(base, lora, dropout=0.5 if lora else 0.0)
    if lora:
        move(model)
    model.eval()
    with torch.no_grad():
        texts = [(item.chosen, item.rejected) for item in pairs.items]
        expected = [[float(read_logprob(model, answer)) for answer in two] for two in texts]
    trainer = ours(model, tmp_path, pairs, pairs, max_steps=1, eval_on_start=True, eval_strategy="steps")
    trainer.train()
    assert pairs.references.tolist() == [pytest.approx(row, abs=1e-4) for row in expected]
    first = next(entry for entry in trainer.state.log_history if "eval_held_loss" in entry)
    assert first["eval_held_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["eval_held_margin"] == pytest.approx(0, abs=1e-4)


def read_logprob(model: Any, answer: Any) -> torch.Tensor:
    table = torch.log_softmax(model(input_ids=torch.tensor([answer.ids])).logits[0], -1)
    return table[range(answer.start - 1, len(answer.ids) - 1), list(answer.answer)].sum()


def test_a_run_that_goes_on_reads_its_reference_again(base: Path, tmp_path: Path, renderer: Renderer) -> None:
    pairs = encode_preferences(records(6), renderer)
    trainer: Any = ours(load(base), tmp_path, pairs)
    trainer._prepare_references()
    written = pairs.references.clone()
    again = encode_preferences(records(6), renderer)
    model = load(base)
    move(model)
    resumed: Any = ours(model, tmp_path, again, resumed=True)
    resumed._prepare_references()
    assert torch.equal(again.references, written)


def test_a_reference_of_other_pairs_or_none_is_refused(tmp_path: Path, renderer: Renderer) -> None:
    pairs, others = (encode_preferences(records(*each), renderer) for each in ((6,), (6, 9)))
    file = tmp_path / REFERENCES
    with pytest.raises(RecipeError, match="--resume: .* is missing"):
        read_references(file, {"train": pairs})
    write_references(file, {"train": torch.zeros(len(pairs), 2)}, {"train": pairs})
    assert read_references(file, {"train": pairs})["train"].shape == (len(pairs), 2)
    with pytest.raises(RecipeError, match="is of other pairs"):
        read_references(file, {"train": others})


def test_figures_in_float64_ties_count_one_half() -> None:
    learner = PreferenceLearner(DpoPolicy(beta=0.5, sft=0.2))
    logprobs = torch.tensor([[-1.0, -4.0], [-5.0, -5.0], [-6.0, -2.0]])
    references = torch.tensor([[-2.0, -3.0], [-4.0, -4.0], [-5.0, -3.0]])
    lengths = torch.tensor([[3.0, 2.0], [1.0, 1.0], [2.0, 2.0]])
    found = learner.compute_metrics(logprobs.numpy(), [references.numpy(), lengths.numpy()])
    gaps = [1.0, 0.0, -1.0]
    expected = sum(math.log1p(math.exp(-gap)) for gap in gaps) / 3 + 0.2 * 12 / 6
    assert found == {
        "loss": pytest.approx(expected, abs=1e-12),
        "accuracy": 0.5,
        "margin": 0.0,
        "reward_chosen": pytest.approx(-0.5 / 3),
        "reward_rejected": pytest.approx(-0.5 / 3),
        "pairs": 3.0,
    }
