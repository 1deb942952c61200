"""Supervised fine-tuning: its loss in float64, exact figures of evaluation, packing, and whole runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from train.tiny_runs import expert_run, history, untimed
from transformers import AutoModelForCausalLM

from tureen.records.schema import Record
from tureen_core.artifact import Artifact, open_artifact
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, RecipeError, SftPolicy
from tureen_train.policies.completion_trainer import CompletionTrainer, find_row_packing_obstacle
from tureen_train.policies.completions import Completions, encode_completions
from tureen_train.policies.method import Task
from tureen_train.policies.run import train_policy
from tureen_train.policies.sft import make_completion_trainer
from tureen_train.records.run_data import RunData

SFT: dict[str, Any] = {"method": "sft", "max_length": 64}


def run_of(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    policy = {**SFT, **changes.pop("policy", {})}
    data = {"pairs_per_prompt": None, **changes.pop("data", {})}
    return expert_run(base, folder, policy=policy, data=data, **changes)


def train(run: ExpertRun, resume: bool = False) -> Artifact:
    artifact = train_policy(run, resume)
    assert artifact is not None
    return artifact


def records(count: int) -> list[Record]:
    """Prompts with an answer each, of unlike lengths."""
    return [
        Record(
            ({"role": "user", "content": f"prompt {number}"},),
            (({"role": "assistant", "content": "the fox jumps " * (1 + number % 4)},),),
            (1.0,),
        )
        for number in range(count)
    ]


def prepared(base: Path, folder: Path, count: int = 6, **changes: Any) -> tuple[CompletionTrainer, Completions]:
    run = run_of(base, folder, **changes)
    assert isinstance(run.policy, SftPolicy)
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, max_length=run.policy.max_length))
    encoded = encode_completions(records(count), renderer)
    (folder / "run").mkdir(exist_ok=True)
    task = Task(run, base, RunData([], {}, {}), renderer, False)
    return make_completion_trainer(task, run.policy, None, encoded, {"held": encoded}), encoded


def read_in_float64(base: Path, encoded: Completions) -> tuple[float, int]:
    """The mean negative log-likelihood of all answers' tokens, one text at a time, and their number."""
    oracle = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for item in encoded.items:
            table = torch.log_softmax(oracle(input_ids=torch.tensor([item.ids])).logits[0], -1)
            places = range(item.start - 1, len(item.ids) - 1)
            total -= float(table[places, list(item.answer)].sum())
            tokens += len(item.answer)
    return total / tokens, tokens


@pytest.mark.parametrize("packing", [False, True])
def test_the_first_loss_is_the_answers_in_float64(base: Path, tmp_path: Path, packing: bool) -> None:
    """The mean over all tokens of the step, however the batch is split and whether texts share a row."""
    split = {"batch": 6} if packing else {"batch": 2, "accumulation": 3}
    trainer, encoded = prepared(
        base, tmp_path, policy={"packing": packing, "max_length": 200}, optimisation={**split, "max_steps": 1}
    )
    assert ("seq_lengths" in trainer.train_dataset.column_names) is packing
    trainer.train()
    expected, tokens = read_in_float64(base, encoded)
    (entry,) = [entry for entry in history(tmp_path / "run") if "loss" in entry]
    assert entry["loss"] == pytest.approx(expected, abs=1e-5)
    first, last = [entry for entry in history(tmp_path / "run") if "eval_held_loss" in entry] + [{}]
    assert first["eval_held_loss"] == pytest.approx(expected, abs=1e-5)
    assert first["eval_held_tokens"] == tokens
    assert last == {}


def test_packed_gradients_are_those_of_texts_alone(base: Path, tmp_path: Path) -> None:
    gradients = []
    for packing in (False, True):
        torch.manual_seed(0)
        trainer, _ = prepared(base, tmp_path, model={"lora": None}, policy={"packing": packing, "max_length": 200})
        batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(trainer.train_dataset))])
        trainer.compute_loss(trainer.model.train(), dict(batch)).backward()
        gradients.append([weight.grad for weight in trainer.model.parameters()])
    for padded, packed in zip(*gradients, strict=True):
        assert padded.abs().max() > 0
        assert torch.allclose(packed, padded, atol=1e-5)


def test_figures_do_not_depend_on_the_batches(base: Path, tmp_path: Path) -> None:
    found = []
    for batch in (1, 4, 64):
        trainer, _ = prepared(base, tmp_path, count=7, optimisation={"eval_batch": batch})
        trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        found.append(trainer.evaluate())
    for figures in found[1:]:
        for name in ("loss", "entropy", "top1", "tokens"):
            assert figures[f"eval_held_{name}"] == pytest.approx(found[0][f"eval_held_{name}"], abs=1e-5)


def test_a_model_that_overlooks_positions_is_not_packed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import masking_utils

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert find_row_packing_obstacle(model, sharded=False) is None
    assert find_row_packing_obstacle(model, sharded=True) == "a sharded model cannot be tried"
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)
    assert find_row_packing_obstacle(model, sharded=False) == "a text in a row sees the text before it"
    trainer, _ = prepared(base, tmp_path, policy={"packing": True})
    assert "policy.packing: texts are padded: a text in a row sees the text before it" in caplog.text
    assert "seq_lengths" not in trainer.train_dataset.column_names


@pytest.fixture(scope="module")
def learnt(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExpertRun, Artifact]:
    run = run_of(base, tmp_path_factory.mktemp("learnt"), optimisation={"max_steps": 20}, family="zoo")
    return run, train(run)


def test_a_run_learns_and_becomes_an_expert(learnt: tuple[ExpertRun, Artifact]) -> None:
    run, artifact = learnt
    losses = [entry["loss"] for entry in history(Path(run.output)) if "loss" in entry]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    manifest = open_artifact(artifact.folder).manifest
    assert (manifest.kind, manifest.name) == ("expert", "foxes")
    figures = manifest.training.metrics["heldout"]
    assert set(figures) == {"loss", "entropy", "top1", "tokens"}
    first = next(entry for entry in history(Path(run.output)) if "eval_heldout_loss" in entry)
    assert figures["loss"] < first["eval_heldout_loss"]
    account = json.loads((Path(run.output) / "account.json").read_text())["texts"]["training"]
    assert account["unit"] == "answers"


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"precision": "bf16"}},
        {"model": {"gradient_checkpointing": True}},
        {"policy": {"packing": True}},
        {"policy": {"answers": "all"}},
    ],
    ids=str,
)
def test_other_ways_to_train(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = run_of(base, tmp_path, optimisation={"max_steps": 3, "warmup": 0.0}, **changes)
    train(run)
    norms = [entry["grad_norm"] for entry in history(Path(run.output)) if "grad_norm" in entry]
    assert len(norms) == 3
    assert all(norm > 0 for norm in norms)


def test_whole_weights_and_a_start(base: Path, tmp_path: Path, learnt: tuple[ExpertRun, Artifact]) -> None:
    whole = run_of(
        base, tmp_path, model={"lora": None}, optimisation={"learning_rate": 1e-3}, output=str(tmp_path / "whole")
    )
    assert train(whole).manifest.kind == "policy"
    run, before = learnt
    on = run_of(base, tmp_path, model={"start": str(before.folder)}, optimisation={"max_steps": 1})
    train(on)
    first = next(entry for entry in history(Path(on.output)) if "eval_heldout_loss" in entry)
    assert first["eval_heldout_loss"] == pytest.approx(before.manifest.training.metrics["heldout"]["loss"], abs=1e-4)


def test_a_resumed_run_is_the_straight_one(base: Path, tmp_path: Path) -> None:
    """Its log too, which is due at other steps than the checkpoint."""
    watch = {"save_every": 2, "keep": 3, "log_every": 3, "eval_at_start": True}
    run = run_of(base, tmp_path, optimisation={"max_steps": 4}, watch=watch)
    straight = [probe.logprob for probe in train(run).manifest.probes]
    expected = untimed(Path(run.output))
    shutil.rmtree(Path(run.output) / "checkpoints" / "checkpoint-4")
    again = [probe.logprob for probe in train(run, resume=True).manifest.probes]
    assert again == pytest.approx(straight, abs=1e-5)
    assert [entry["step"] for entry in expected if "loss" in entry] == [1, 2, 3, 4]
    for own, other in zip(untimed(Path(run.output)), expected, strict=True):
        assert own == pytest.approx(other, abs=1e-5)


def test_dialogues_without_scores_are_trained_on(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"fox {n}"}]}
        for n in range(12)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    run = run_of(base, tmp_path, data={"train": [{"path": str(path)}]}, optimisation={"max_steps": 2})
    assert train(run).manifest.kind == "expert"


def test_nothing_to_learn_is_told(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": "z" * 100 + str(n), "chosen": "a", "rejected": "b"} for n in range(4)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"prompt": "?", "chosen": "a", "rejected": "b"}])))
    run = run_of(base, tmp_path, data={"train": [{"path": str(path)}], "holdout": 0})
    with pytest.raises(RecipeError, match="4 of 5 answers are left out .4 with a prompt longer than policy.max_length"):
        train_policy(run)
