"""Speed of training on DSP's five answers a prompt: ours, with and without shared prompts, and TRL's RewardTrainer.

    make bench-train

All train the same LoRA and score head on the same comparisons, in turn: a step is so many prompts, each with the four
pairs of its domain's answer with the others. TRL reads each pair by itself, eight texts a prompt; ours five.
Tokens are the pairs' own, as TRL sees them without padding, whoever trains. The losses of the first step show that it
is the same training. Time is the run's from its first batch to its last step, collation within.
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bench.shapes import table
from datasets import Dataset, disable_progress_bars
from peft import get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar
from trl import RewardConfig
from trl import RewardTrainer as PeersTrainer

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Packed, RewardRun, resolve_recipe
from tureen_train.networks.reward_model import add_lora, load_reward_model, make_lora_config
from tureen_train.records.run_data import load_data
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords
from tureen_train.rewards.methods import find_method
from tureen_train.rewards.trainer import RewardTrainer
from tureen_train.runs.folder import find_base

TITLES = {
    "trl": "TRL's RewardTrainer",
    "padded": "ours, padded",
    "packed": "ours, packed",
    "shared": "ours, packed, prompts shared",
}
PACKINGS: dict[str, Packed] = {"padded": "off", "packed": "texts", "shared": "prompts"}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Train on DSP's own texts and print."""
    asked = parser(__doc__).parse_args()
    run = recipe(asked)
    renderer = Renderer(load_tokenizer(find_base(run)), run.reading)
    compare(asked, chosen(EncodedRecords(load_data(run.data).train, renderer).items, needed(asked)))


def compare(asked: argparse.Namespace, items: Sequence[EncodedRecord]) -> None:
    """Train all contestants on these prompts, in turn, and print."""
    logging.disable(logging.WARNING)
    disable_progress_bar()
    disable_progress_bars()
    run = recipe(asked)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: trainer(run, Path(folder), asked, items[:1], name) for name in asked.contestants}
        bench = Bench(trainers, asked.prompts)
        for name in trainers:
            bench.train(name, items[: asked.prompts])  # warm-up, and the loss to compare
        losses = {name: bench.runs[name].pop().loss for name in trainers}
        for start in range(asked.prompts, len(items), asked.prompts * asked.steps):
            for name in trainers:
                bench.train(name, items[start : start + asked.prompts * asked.steps])
    print(f"{asked.prompts} prompts a step, {asked.rounds} × {asked.steps} steps, {run.model.precision}, {device()}")
    print("\n".join(report(bench.runs, losses)))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """What to train."""
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    found.add_argument("--data", type=Path, default=Path("../shared/data"))
    found.add_argument("--base", default="smollm2-135m-instruct")
    found.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    found.add_argument("--max-length", type=int, default=512)
    found.add_argument("--prompts", type=int, default=1, help="a step; four pairs each")
    found.add_argument("--steps", type=int, default=3, help="a round")
    found.add_argument("--rounds", type=int, default=2)
    found.add_argument("--contestants", nargs="+", choices=TITLES, default=["trl", "packed", "shared"])
    return found


def needed(asked: argparse.Namespace) -> int:
    """Prompts for all rounds and the warm-up."""
    count: int = asked.prompts * (asked.steps * asked.rounds + 1)
    return count


def device() -> str:
    """Where it runs, in words."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"


def recipe(asked: argparse.Namespace) -> RewardRun:
    """DSP's domain stage: the academic answer above the four others."""
    source = {"path": "dsp/domain_specific_preference.test.json", "domain": "academy"}
    run = resolve_recipe(
        {
            "kind": "reward",
            "name": "bench",
            "data": {"root": str(asked.data), "train": [source], "holdout": 0},
            "model": {"base": asked.base, "precision": asked.precision, "lora": {"targets": TARGETS}},
            "reading": {"max_length": asked.max_length},
            "optimisation": {"learning_rate": 1e-5},
        }
    )
    assert isinstance(run, RewardRun)
    return run


def chosen(items: Sequence[EncodedRecord], count: int) -> list[EncodedRecord]:
    """So many prompts with four comparisons each, at random but always the same."""
    whole = [item for item in items if len(pairs([item])) == 4]
    return random.Random(7).sample(whole, count)


def pairs(items: Sequence[EncodedRecord]) -> list[tuple[list[int], list[int]]]:
    """The comparisons as TRL wants them: the better and the worse text of each."""
    return [
        (item.ids[better], item.ids[worse])
        for item in items
        for better, high in enumerate(item.scores)
        for worse, low in enumerate(item.scores)
        if high > low
    ]


# --------------------------------------------------------------------------- contestants


def trainer(
    run: RewardRun, folder: Path, asked: argparse.Namespace, items: Sequence[EncodedRecord], name: str
) -> Trainer:
    """A contestant, all from the same weights."""
    base = find_base(run)
    tokenizer = load_tokenizer(base)
    common: dict[str, Any] = {
        "output_dir": str(folder / name),
        "learning_rate": run.optimisation.learning_rate,
        "bf16": asked.precision == "bf16",
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    torch.manual_seed(7)
    ours = load_reward_model(base, run.model, run.reading)
    head = ours.score.weight.detach().clone()
    torch.manual_seed(7)
    if name == "trl":
        model = peers_model(run, base, head)
        settings = RewardConfig(**common, per_device_train_batch_size=4 * asked.prompts, max_length=asked.max_length)
        return PeersTrainer(model, settings, train_dataset=rows(items), processing_class=tokenizer)
    return RewardTrainer(
        model=add_lora(ours, run.model),
        args=TrainingArguments(**common, per_device_train_batch_size=asked.prompts, label_names=["scores"]),
        train_dataset=items,
        processing_class=tokenizer,
        method=find_method(run, Renderer(tokenizer, run.reading)),
        width=len(items[0].ids),
        packing=PACKINGS[name],
    )


def peers_model(run: RewardRun, base: Path, head: torch.Tensor) -> Any:
    """TRL's kind of reward model, with the same LoRA and head."""
    dtype = torch.bfloat16 if run.model.precision == "bf16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    model.score.float()
    with torch.no_grad():
        model.score.weight.copy_(head)
    assert run.model.lora is not None
    return get_peft_model(model, make_lora_config(run.model.lora, model, ["score"]))


def rows(items: Sequence[EncodedRecord]) -> Dataset:
    """TRL's columns."""
    return Dataset.from_list([{"chosen_ids": better, "rejected_ids": worse} for better, worse in pairs(items)])


# --------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Ran:
    """A round: seconds by the clock and of this process, what it trained on, and its first loss."""

    seconds: float
    cpu: float
    tokens: int
    pairs: int
    loss: float


class Clock(TrainerCallback):  # type: ignore[misc]
    """From the first batch asked for to the last step."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.took = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]


class Bench:
    """Trains contestants by name, and keeps what each round took."""

    def __init__(self, trainers: dict[str, Trainer], prompts: int) -> None:
        self.runs: dict[str, list[Ran]] = {name: [] for name in trainers}
        self._trainers = trainers
        for each in trainers.values():
            each.remove_callback(PrinterCallback)
        self._prompts = prompts

    def train(self, name: str, items: Sequence[EncodedRecord]) -> None:
        """One round on these prompts."""
        one, clock = self._trainers[name], Clock()
        one.train_dataset = rows(items) if name == "trl" else items
        one.args.max_steps = len(items) // self._prompts
        one.add_callback(clock)
        one.train()
        one.remove_callback(clock)
        compared = pairs(items)
        tokens = sum(len(better) + len(worse) for better, worse in compared)
        first = next(entry["loss"] for entry in one.state.log_history if "loss" in entry)
        self.runs[name].append(Ran(*clock.took, tokens, len(compared), first))


def report(runs: dict[str, list[Ran]], losses: dict[str, float]) -> Iterator[str]:
    """The table, and how much faster each is than TRL."""
    head = ["", "pair tokens/s", "pairs/s", "× TRL", "× TRL, CPU time", "first loss"]
    peer = runs.get("trl") or next(iter(runs.values()))
    yield table(head, [[TITLES[name], *_line(own, peer), f"{losses[name]:.4f}"] for name, own in runs.items()])


def _line(own: Sequence[Ran], peer: Sequence[Ran]) -> list[str]:
    seconds, cpu, tokens, count = (
        sum(getattr(each, name) for each in own) for name in ("seconds", "cpu", "tokens", "pairs")
    )
    theirs, their_cpu = sum(each.seconds for each in peer), sum(each.cpu for each in peer)
    return [f"{tokens / seconds:.0f}", f"{count / seconds:.2f}", f"{theirs / seconds:.2f}", f"{their_cpu / cpu:.2f}"]


if __name__ == "__main__":
    main()
