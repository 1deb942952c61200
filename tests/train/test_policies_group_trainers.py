"""TRL's trainers with our parts: the losses and figures of TRL's own, and the answers of our sampler."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from datasets import Dataset
from train.test_policies_on_trl import group_run
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tureen_core.base import load_tokenizer
from tureen_core.packed.attention import NAME
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, Packed
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.group_trainers import (
    GroupParts,
    PackedGrpoTrainer,
    PackedRlooTrainer,
    draw_step_seed,
    tell_apart,
)
from tureen_train.policies.on_trl import StepSeed, make_arguments
from tureen_train.policies.opening import choose_layout, open_policy
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.sampler import ProcessSampler

TRAINERS: dict[str, Any] = {
    "grpo": (GRPOConfig, GRPOTrainer, PackedGrpoTrainer),
    "rloo": (RLOOConfig, RLOOTrainer, PackedRlooTrainer),
}
QUESTIONS = ["why?", "why do leaves fall in autumn?", "fox?", "the lazy dog jumps over the quick brown fox"]
PROMPTS = [Prompt(f"file:{at}", ({"role": "user", "content": text},)) for at, text in enumerate(QUESTIONS * 4)]
FIGURES = ("loss", "grad_norm", "kl", "entropy", "clip_ratio/region_mean")
LAYOUTS: list[Packed] = ["prompts", "texts", "off"]


def small_run(base: Path, folder: Path, method: str, lora: bool = True) -> ExpertRun:
    """Two micro-batches of two prompts each, and two updates on the same answers."""
    optimisation = {"batch": 2, "learning_rate": 2e-2 if lora else 5e-3}
    sampling, watch = {"count": 3, "max_tokens": 6, "temperature": 0.7}, {"log_every": 1, "save_every": 0}
    run = group_run(base, folder, method, steps=4, sampling=sampling, optimisation=optimisation, watch=watch)
    raw = run.model_dump()
    raw["optimisation"]["accumulation"] = 2
    raw["policy"] |= {"kl": 0.3, "iterations": 2, "clip": 0.05}
    raw["model"] |= {} if lora else {"lora": None}
    return ExpertRun.model_validate(raw)


def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


def open_trainer(run: ExpertRun, base: Path, ours: bool, layout: Packed = "off") -> Any:
    config, theirs, own = TRAINERS[run.policy.method]
    model = open_policy(run, base)
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))
    trainer = (own if ours else theirs)(
        model=model,
        reward_funcs=[reward],
        args=config(**make_arguments(run)),
        train_dataset=Dataset.from_list(
            [{"prompt": [dict(turn) for turn in each.messages], "id": each.id} for each in PROMPTS]
        ),
        processing_class=renderer.tokenizer,
        callbacks=[StepSeed()],
    )
    packed = run.model_copy(update={"scale": run.scale.model_copy(update={"packing": layout})})
    assert choose_layout(packed, [model]) == layout
    trainer.parts = GroupParts(renderer, {each.id: each for each in PROMPTS}, run.sampling, layout)
    return trainer


def train_on_given_answers(trainer: Any) -> list[dict[str, float]]:
    """The log of a run whose answers are random ids of 1 to 6 tokens, the same for all trainers."""

    def write(prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> Any:
        draw = random.Random(trainer.state.global_step)
        answers = [[draw.randrange(5, 300) for _ in range(draw.randint(1, 6))] for _ in prompt_ids]
        return answers if isinstance(trainer, RLOOTrainer) else (answers, None)

    trainer._generate_single_turn = write
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("method", TRAINERS)
@pytest.mark.parametrize("lora", [True, False])
def test_losses_and_figures_are_those_of_trl(method: str, lora: bool, base: Path, tmp_path: Path) -> None:
    """With whole weights the reference is a model of TRL's own class."""
    run = small_run(base, tmp_path, method, lora)
    theirs = train_on_given_answers(open_trainer(run, base, ours=False))
    assert len(theirs) == 4
    assert len({entry["loss"] for entry in theirs}) > 2
    assert any(abs(entry.get("kl", 0)) > 1e-2 for entry in theirs)  # RLOO logs it where answers are new
    assert any(entry["clip_ratio/region_mean"] for entry in theirs)
    for layout in LAYOUTS:
        trainer = open_trainer(run, base, ours=True, layout=layout)
        ours = train_on_given_answers(trainer)
        assert (trainer.accelerator.unwrap_model(trainer.model).config._attn_implementation == NAME) == (
            layout != "off"
        )
        for name in FIGURES:
            loose = 0.1 if name.startswith("clip_ratio") else 1e-4  # one of 12 ratios may lie at the border itself
            expected = pytest.approx([entry[name] for entry in theirs if name in entry], rel=2e-3, abs=loose)
            assert [entry[name] for entry in ours if name in entry] == expected, (layout, name)


@pytest.mark.parametrize("method", TRAINERS)
def test_the_answers_are_those_of_our_sampler(method: str, base: Path, tmp_path: Path) -> None:
    run = small_run(base, tmp_path, method)
    trainer = open_trainer(run, base, ours=True, layout="prompts")
    prompts = [PROMPTS[0], PROMPTS[1]]
    trainer.model.train()
    trainer.asked = [each.id for each in prompts for _ in range(3)]
    written = trainer._generate_single_turn([[1]] * 6, None, {})
    written = written if method == "rloo" else written[0]
    seed = draw_step_seed(run.optimisation.seed, trainer.state)
    expected = ProcessSampler(trainer.model, trainer.parts.renderer).sample(
        prompts, run.sampling, seed, ignore_progress
    )
    assert written == [list(each.ids) for own in expected for each in own]
    assert trainer.model.training


def test_a_prompt_that_comes_twice_in_a_step_is_answered_anew(base: Path, tmp_path: Path) -> None:
    twice = tell_apart([PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert [each.messages for each in twice] == [PROMPTS[at].messages for at in (0, 1, 0)]
    assert twice[:2] == PROMPTS[:2]
    assert twice[2].id == "file:0 again 1"
