"""Speed of one on-policy step, rollout and update: our GRPO against TRL's GRPOTrainer with the same settings.

    make bench-on-policy

Both train the same LoRA from the same weights, and run in turn: a step is so many prompts with so many answers to each,
written by the policy, rewarded by their length, and learnt from once, with the KL divergence from the reference. TRL
computes the prompt of each answer anew, in padded rows; ours computes it once for all answers that run together. Tokens
are those of the answers that each side wrote. A rollout ends when its answers are written; the update is the rest of
the step: rewards, the reference, the loss, its gradient, and the optimiser. That both learn the same from the same
answers is tested in ``tests/train/test_policies_group_trainers.py``.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.shapes import table
from bench.training import TARGETS, device
from datasets import Dataset, disable_progress_bars
from peft import get_peft_model
from transformers import AutoModelForCausalLM, PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, resolve_recipe
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.group_trainers import GroupParts, PackedGrpoTrainer
from tureen_train.policies.on_trl import make_arguments
from tureen_train.policies.opening import choose_layout, open_policy
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import collect_prompts
from tureen_train.policies.rollouts.sampler import find_end_tokens
from tureen_train.records.run_data import load_data
from tureen_train.runs.folder import find_base
from tureen_train.runs.rereading import make_expert_reading

TITLES = {"trl": "TRL's `GRPOTrainer`", "ours": "ours, packed, prompts shared"}
PARTS = ("rollout", "update", "step")


@dataclass(frozen=True)
class Ran:
    """A step: the tokens written, and the seconds of the rollout and of the whole, by the clock and of the CPU."""

    tokens: int
    rollout: float
    step: float
    rollout_cpu: float
    step_cpu: float

    def take(self, part: str, cpu: bool = False) -> float:
        """The seconds of a part."""
        rollout, step = (self.rollout_cpu, self.step_cpu) if cpu else (self.rollout, self.step)
        return {"rollout": rollout, "update": step - rollout, "step": step}[part]


def main() -> None:
    """Run steps in turn and print."""
    asked = make_parser().parse_args()
    logging.disable(logging.WARNING)
    disable_progress_bar()
    disable_progress_bars()
    run = make_recipe(asked)
    base = find_base(run)
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    steps = asked.rounds + 1
    prompts = collect_prompts(load_data(run.data, prompts=True).train, renderer, asked.max_prompt).prompts
    prompts = prompts[:: max(1, len(prompts) // (steps * asked.prompts))][: steps * asked.prompts]
    runs: dict[str, list[Ran]] = {name: [] for name in TITLES}
    with tempfile.TemporaryDirectory() as folder:
        run = run.model_copy(update={"output": folder})
        trainers = {name: open_trainer(name, run, base, renderer, prompts) for name in TITLES}
        for number in range(steps):
            own = prompts[number * asked.prompts : (number + 1) * asked.prompts]
            for name in sorted(TITLES, reverse=number % 2 == 1):
                ran = run_step(trainers[name], own)
                if number:  # the first one is a warm-up
                    runs[name].append(ran)
    print(f"{asked.prompts} prompts a step, {asked.count} answers each, {asked.max_tokens} tokens at most, {device()}")
    print("\n".join(report(runs)))
    if asked.json:
        asked.json.write_text(json.dumps({name: [asdict(each) for each in own] for name, own in runs.items()}) + "\n")


def make_parser() -> argparse.ArgumentParser:
    """What to run."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--data", type=Path, default=Path("../shared/data"))
    found.add_argument("--path", default="dsp/domain_specific_preference.test.json", help="prompts, below --data")
    found.add_argument("--base", default="smollm2-135m-instruct")
    found.add_argument("--prompts", type=int, default=4, help="a step")
    found.add_argument("--count", type=int, default=8, help="answers to a prompt")
    found.add_argument("--max-tokens", type=int, default=64)
    found.add_argument("--max-prompt", type=int, default=512)
    found.add_argument("--rounds", type=int, default=3, help="measured steps of each side")
    found.add_argument("--json", type=Path, help="a file for the figures of each step")
    return found


def make_recipe(asked: argparse.Namespace) -> ExpertRun:
    """The settings of both."""
    run = resolve_recipe(
        {
            "kind": "expert",
            "name": "bench",
            "data": {"root": str(asked.data), "train": [{"path": asked.path}], "holdout": 0},
            "rewards": [{"source": "function", "function": "builtins:len", "name": "length"}],
            "model": {"base": asked.base, "precision": "fp32", "lora": {"targets": TARGETS}},
            "policy": {"method": "grpo", "max_length": asked.max_prompt + asked.max_tokens},
            "sampling": {
                "count": asked.count,
                "max_tokens": asked.max_tokens,
                "max_prompt": asked.max_prompt,
                "batch": asked.count * asked.prompts,
            },
            "optimisation": {"learning_rate": 1e-5, "batch": asked.prompts, "max_steps": 1},
            "watch": {"log_every": 1, "save_every": 0},
        }
    )
    assert isinstance(run, ExpertRun)
    return run


def reward_length(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """A reward that costs nothing: the number of different tokens."""
    return [float(len(set(ids))) for ids in completion_ids]


def open_trainer(name: str, run: ExpertRun, base: Path, renderer: Renderer, prompts: Sequence[Prompt]) -> Any:
    """A contestant, both from the same weights."""
    arguments: dict[str, Any] = {**make_arguments(run), "save_strategy": "no", "disable_tqdm": True}
    made = open_policy(run, base) if name == "ours" else open_plain(run, base)
    made.generation_config.eos_token_id = find_end_tokens(made.generation_config.eos_token_id, renderer)
    kind = PackedGrpoTrainer if name == "ours" else GRPOTrainer
    trainer = kind(
        model=made,
        reward_funcs=[reward_length],
        args=GRPOConfig(**arguments),
        train_dataset=make_rows(prompts),
        processing_class=renderer.tokenizer,
    )
    if name == "ours":
        layout = choose_layout(run, [made])
        trainer.parts = GroupParts(renderer, {each.id: each for each in prompts}, run.sampling, layout)
    trainer.remove_callback(PrinterCallback)
    return trainer


def open_plain(run: ExpertRun, base: Path) -> Any:
    """The library's causal model with the LoRA of ours."""
    assert run.model.lora is not None
    set_seed(run.optimisation.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return get_peft_model(model, make_lora_config(run.model.lora, model, task="CAUSAL_LM"))


def make_rows(prompts: Sequence[Prompt]) -> Dataset:
    """TRL's columns."""
    return Dataset.from_list([{"prompt": [dict(turn) for turn in each.messages], "id": each.id} for each in prompts])


# --------------------------------------------------------------------------- measuring


class Clock:
    """Adds up the seconds of a function's calls, by the clock and of this process, and the tokens that they wrote."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = self.cpu = 0.0
        self.tokens = 0

    def __call__(self, *given: Any, **more: Any) -> Any:
        begun = time.perf_counter(), time.process_time()
        found = self._function(*given, **more)
        self.seconds += time.perf_counter() - begun[0]
        self.cpu += time.process_time() - begun[1]
        self.tokens += sum(map(len, found[0]))
        return found


def run_step(trainer: Any, prompts: Sequence[Prompt]) -> Ran:
    """One step on these prompts, on new answers."""
    written = Clock(type(trainer)._generate_single_turn.__get__(trainer))
    trainer._generate_single_turn, trainer._step, trainer._buffered_inputs = written, 0, None
    trainer.train_dataset = make_rows(prompts)
    begun = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    return Ran(written.tokens, written.seconds, seconds, written.cpu, cpu)


def report(runs: dict[str, list[Ran]]) -> Iterator[str]:
    """The table, and how much faster ours is than TRL, step by step."""
    rows = [
        [
            TITLES[name],
            *[f"{sum(each.tokens for each in own) / sum(each.take(part) for each in own):.1f}" for part in PARTS],
        ]
        for name, own in runs.items()
    ]
    for title, cpu in (("ours / TRL, clock", False), ("ours / TRL, CPU time", True)):
        rows.append([title, *[describe_ratios(runs["ours"], runs["trl"], part, cpu) for part in PARTS]])
    yield table(["answer tokens/s", *PARTS], rows)


def describe_ratios(ours: Sequence[Ran], theirs: Sequence[Ran], part: str, cpu: bool) -> str:
    """The median and the smallest of the steps' ratios of tokens/s."""
    ratios = [
        own.tokens / own.take(part, cpu) / (peer.tokens / peer.take(part, cpu))
        for own, peer in zip(ours, theirs, strict=True)
    ]
    return f"{statistics.median(ratios):.2f} (least {min(ratios):.2f})"


if __name__ == "__main__":
    main()
