"""The reference stays the policy as the run started: the base, an adapter over it, or whole weights."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from train.tiny_ppo import make_texts, ppo_run
from train.tiny_runs import LORA

from tureen_train.config import ExpertRun
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.ppo.actor_critic import ActorCritic
from tureen_train.policies.ppo.critic import find_critic_start, make_critic
from tureen_train.policies.reference import make_reference
from tureen_train.policies.token_logprobs import collate_answers

ANSWERS = collate_answers(make_texts([(7, 5), (4, 6)]), [0, 1], 0)


def opened(run: ExpertRun, base: Path) -> ActorCritic:
    begun = open_start(run, base)
    policy = open_policy(run, base, begun)
    reference = make_reference(run, base, policy, begun)
    return ActorCritic(policy, make_critic(find_critic_start(run, base), run, tiny.reading(base)), reference)


@torch.no_grad()
def read(model: ActorCritic, role: Any = "learner") -> Tensor:
    found: Tensor = model.eval()(answers=ANSWERS, role=role).logprobs
    return found


@pytest.mark.parametrize("kind", ["base", "adapter", "whole weights"])
def test_training_moves_the_policy_and_not_the_reference(kind: str, base: Path, tmp_path: Path) -> None:
    model: dict[str, Any] = {"lora": {**LORA, "targets": ["q_proj", "v_proj", "down_proj"]}}
    if kind == "adapter":
        model["start"] = str(tiny.expert(tmp_path / "expert", base, "kind", seed=3).folder)
    elif kind == "whole weights":
        model["lora"] = None
    run = ppo_run(base, tmp_path, model=model)
    both = opened(run, base)
    before = read(both)
    assert before.equal(read(both, "reference"))
    fresh = read(opened(ppo_run(base, tmp_path), base))
    assert before.equal(fresh) == (kind != "adapter")
    trained = {name: weight for name, weight in both.policy.named_parameters() if weight.requires_grad}
    assert not any(".start." in name for name in trained)
    both(answers=ANSWERS).logprobs.sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in trained.values())
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(0.05)
    assert before.equal(read(both, "reference"))
    assert not torch.allclose(before, read(both), atol=1e-2)
    assert {name for name, weight in both.policy.named_parameters() if weight.requires_grad} == set(trained)
