"""Tiny PPO runs: a recipe whose reward is a function of the text, and a learner to feed by hand."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from accelerate import Accelerator
from peft import get_peft_model
from train.tiny_runs import expert_run

from tureen_train.config import ExpertRun, Packed
from tureen_train.networks.policy_model import load_policy_model
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.policies.encoding import EncodedAnswer
from tureen_train.policies.ppo.actor_critic import ActorCritic
from tureen_train.policies.ppo.critic import find_critic_start, make_critic
from tureen_train.policies.ppo.learner import PpoLearner

Prompts = Sequence[Sequence[Mapping[str, str]]]

FUNCTION = {"source": "function", "function": "train.tiny_ppo:count_letters", "name": "letters"}


def count_letters(prompts: Prompts, answers: Sequence[str]) -> list[float]:
    """The share of the letters a to m among an answer's characters; 0 for an empty answer."""
    return [sum("a" <= each <= "m" for each in text) / max(1, len(text)) for text in answers]


class Meter:
    """Rewards letters, counts its answers, and breaks the run at a call."""

    def __init__(self) -> None:
        self.calls = 0
        self.seen: Counter[str] = Counter()
        self.breaks_at = math.inf

    def __call__(self, prompts: Prompts, answers: Sequence[str]) -> list[float]:
        if self.calls >= self.breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.seen.update(answers)
        return count_letters(prompts, answers)


METER = Meter()


def meter(prompts: Prompts, answers: Sequence[str]) -> list[float]:
    """The reward of runs that are broken."""
    return METER(prompts, answers)


def skip_every_other(prompts: Prompts, answers: Sequence[str]) -> list[float | None]:
    """No reward for every other answer."""
    return [None if place % 2 else 1.0 for place, _ in enumerate(answers)]


def fail_always(prompts: Prompts, answers: Sequence[str]) -> list[float]:
    """No reward at all."""
    raise OSError("no disk")


def ppo_run(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    """A run by PPO of a few steps over the prompts of :func:`train.tiny_runs.records`."""
    policy = {"method": "ppo", "max_length": 64, "steps": 2, "prompts": 4, "epochs": 2, **changes.pop("policy", {})}
    sampling = {"count": 2, "max_tokens": 8, "max_prompt": 48, **changes.pop("sampling", {})}
    optimisation = {"learning_rate": 5e-3, "batch": 4, "seed": 7, "warmup": 0.0, **changes.pop("optimisation", {})}
    data = {"pairs_per_prompt": None, **changes.pop("data", {})}
    changes = {"rewards": [FUNCTION], "watch": {"eval_at_start": False}, **changes}
    return expert_run(
        base,
        folder,
        policy=policy,
        sampling=sampling,
        optimisation={**optimisation, "max_steps": -1},
        data=data,
        **changes,
    )


def make_texts(lengths: Sequence[tuple[int, int]], seed: int = 0) -> list[EncodedAnswer]:
    """Random texts, given by the lengths of prompt and answer; prompts of one length are the same."""
    draw = torch.Generator().manual_seed(seed)
    prompts: dict[int, tuple[int, ...]] = {}
    texts = []
    for prompt, answer in lengths:
        head = prompts.setdefault(prompt, _draw_ids(prompt, draw))
        texts.append(EncodedAnswer(head + _draw_ids(answer, draw), prompt))
    return texts


def _draw_ids(count: int, draw: torch.Generator) -> tuple[int, ...]:
    return tuple(torch.randint(5, 300, (count,), generator=draw).tolist())


def make_model(run: ExpertRun, base: Path, spread: float = 0.0) -> ActorCritic:
    """A policy with a LoRA, away from its reference by about ``spread``, and its critic."""
    torch.manual_seed(run.optimisation.seed)
    policy = load_policy_model(base, run.model)
    assert run.model.lora is not None
    policy = get_peft_model(policy, make_lora_config(run.model.lora, policy, task="CAUSAL_LM"))
    for name, weight in policy.named_parameters():
        if "lora_B" in name and spread:
            torch.nn.init.normal_(weight, std=spread)
    critic = make_critic(find_critic_start(run, base), run, tiny.reading(base))
    return ActorCritic(policy, critic, policy.disable_adapter)


def make_learner(run: ExpertRun, base: Path, spread: float = 0.0, layout: Packed = "off") -> PpoLearner:
    """A learner on this process."""
    return PpoLearner(Accelerator(cpu=True), make_model(run, base, spread), run, layout, pad=0)
