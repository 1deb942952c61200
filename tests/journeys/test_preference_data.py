"""Preference data round trip: what labelling writes is read by datasets, by TRL's trainers and by our own readers."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
from datasets import Dataset, load_dataset
from serve.artifacts import build
from serve.labelling import ignore, item, plan, rows, write
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from tureen.labelling.recipe import FORMS, PAIRED, Recipe
from tureen.records.reading import Reading
from tureen_serve.labelling.local_engine import label_locally
from tureen_serve.labelling.shards import find_shards
from tureen_serve.settings import load_settings

COUNT = 9
PAIRS_EACH = 2  # best-each of three candidates


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items labelled in every form, as JSON Lines and as Parquet, in a folder each."""
    folder = tmp_path_factory.mktemp("written")
    settings = load_settings(build(folder))
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    items = [
        {**item(number), "prompt": [*talk, {"role": "user", "content": f"why {number}?"}]} for number in range(COUNT)
    ]
    write(folder / "in" / "talks.jsonl", items)
    write(folder / "in" / "plain.jsonl", [{**each, "prompt": f"why {n}?"} for n, each in enumerate(items)])
    for form in FORMS:
        how = plan(recipe=Recipe(form, "best-each" if form in PAIRED else "best-worst"), size=64)
        for ending in ("jsonl", "parquet"):
            (folder / form).mkdir(exist_ok=True)
            label_locally(settings, find_shards([folder / "in"], folder / form, f".{ending}"), how, ignore)
    return folder


def source(form: str) -> str:
    """RewardBench has single turns only."""
    return "plain" if form == "rewardbench" else "talks"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_datasets_reads_every_row_and_column(written: Path, tmp_path: Path, form: str, ending: str) -> None:
    path = written / form / f"{source(form)}.{ending}"
    kind = "json" if ending == "jsonl" else "parquet"
    found = load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path))
    expected = rows(written / form / f"{source(form)}.jsonl")
    assert len(found) == len(expected) == COUNT * (PAIRS_EACH if form in PAIRED else 1)
    assert set(found.column_names) == set(expected[0])
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    if form.startswith("trl"):
        assert found[0]["chosen"] == expected[0]["chosen"]


@pytest.fixture(scope="module")
def base(written: Path) -> Path:
    return written / "base"


@pytest.mark.parametrize("form", ["trl", "trl-implicit", "trl-text"])
def test_trls_reward_trainer_prepares_every_row(written: Path, base: Path, tmp_path: Path, form: str) -> None:
    prepared = reward_trainer(dataset(written, form), base, tmp_path).train_dataset
    assert len(prepared) == COUNT * PAIRS_EACH
    assert all(row["chosen_ids"] != row["rejected_ids"] for row in prepared)
    text = tiny.tokenizer().decode(prepared[0]["chosen_ids"])
    assert text.count("why 0?") == 1
    assert "the fox" in text


def test_trl_reads_the_same_tokens_from_both_conversational_forms(written: Path, base: Path, tmp_path: Path) -> None:
    explicit, implicit = (
        reward_trainer(dataset(written, form), base, tmp_path).train_dataset for form in ("trl", "trl-implicit")
    )
    assert [row["chosen_ids"] for row in explicit] == [row["chosen_ids"] for row in implicit]


@pytest.mark.parametrize("form", ["trl", "trl-implicit", "trl-text"])
def test_trls_dpo_trainer_prepares_every_row_and_takes_a_step(
    written: Path, base: Path, tmp_path: Path, form: str
) -> None:
    config = DPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        bf16=False,
        save_strategy="no",
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=config,
        train_dataset=dataset(written, form),
        processing_class=tiny.tokenizer(),
    )
    assert len(trainer.train_dataset) == COUNT * PAIRS_EACH
    assert trainer.train().metrics["train_loss"] > 0


def reward_trainer(given: Dataset, base: Path, folder: Path) -> RewardTrainer:
    config = RewardConfig(output_dir=str(folder), max_length=256, report_to=[], use_cpu=True, bf16=False)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return RewardTrainer(model, args=config, train_dataset=given, processing_class=tiny.tokenizer())


def dataset(written: Path, form: str) -> Dataset:
    """Read as TRL's own scripts read a file."""
    return load_dataset(
        "json", data_files=str(written / form / "talks.jsonl"), split="train", cache_dir=str(written / "cache")
    )


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", ["trl", "trl-implicit", "trl-text", "text-score", "rewardbench"])
def test_our_own_readers_read_every_row(written: Path, form: str, ending: str) -> None:
    path = written / form / f"{source(form)}.{ending}"
    reading = Reading(path, strict=True)
    records = list(reading)
    lines = rows(path) if ending == "jsonl" else pq.read_table(path).to_pylist()
    assert (reading.report.kept, len(records)) == (len(lines), len(lines))
    assert [record.meta["id"] for record in records] == [line["id"] for line in lines]
    for record, line in zip(records, lines, strict=True):
        scores = line["score"] if form == "text-score" else [line["chosen_score"], line["rejected_score"]]
        assert record.scores == tuple(scores)
        assert record.prompt[-1]["content"].startswith("why ")


def test_all_forms_hold_the_same_conversations(written: Path) -> None:
    found = {}
    for form in ("trl", "trl-implicit", "trl-text", "rewardbench"):
        records = Reading(written / form / "plain.jsonl", strict=True)
        found[form] = [record.conversations for record in records]
    assert found["trl"] == found["trl-implicit"] == found["trl-text"] == found["rewardbench"]
    ranked = [record.conversations for record in Reading(written / "text-score" / "plain.jsonl", strict=True)]
    best_each = found["trl"]
    assert [texts[0] for texts in ranked] == [pair[0] for pair in best_each[::PAIRS_EACH]]
    assert [texts[1] for texts in ranked] == [pair[1] for pair in best_each[::PAIRS_EACH]]


def test_what_a_form_cannot_say_is_in_the_error_file(written: Path) -> None:
    errors = rows(written / "rewardbench" / "talks.errors.jsonl")
    assert [error["line"] for error in errors] == list(range(1, COUNT + 1))
    assert (written / "rewardbench" / "talks.jsonl").read_text() == ""
    state: dict[str, Any] = json.loads((written / "rewardbench" / "talks.jsonl.run.json").read_bytes())
    assert state["tally"]["failed"] == COUNT
