"""The recipe of PPO: its settings, and the settings of others that it refuses."""

from typing import Any

import pytest

from tureen_train.config import ExpertRun, PpoPolicy, RecipeError, resolve_recipe

FUNCTION = {"source": "function", "function": "rewards:score"}


def recipe(**changes: Any) -> ExpertRun:
    raw: dict[str, Any] = {"kind": "expert", "name": "kind", "data": {"train": [{"path": "prompts.jsonl"}]}}
    raw |= {"policy": {"method": "ppo"}, "rewards": [FUNCTION], **changes}
    run = resolve_recipe(raw)
    assert isinstance(run, ExpertRun)
    return run


def test_the_defaults_are_those_of_trl() -> None:
    policy = recipe().policy
    assert isinstance(policy, PpoPolicy)
    assert (policy.kl, policy.kl_control, policy.kl_target, policy.kl_horizon) == (0.2, "adaptive", 6.0, 10_000)
    assert (policy.clip, policy.value_clip, policy.value_weight, policy.ratio_limit) == (0.2, 0.2, 0.1, 10.0)
    assert (policy.gamma, policy.trace, policy.epochs) == (1.0, 0.95, 4)
    assert (policy.whiten_advantages, policy.whiten_rewards, policy.stop_kl) == (True, False, None)
    assert (policy.scale_scores, policy.centre_scores, policy.score_clip, policy.unfinished_reward) == (
        *(False, False),
        *(None, None),
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimisation": {"max_steps": 9}}, r"optimisation\.max_steps: PPO has policy\.steps instead"),
        ({"optimisation": {"epochs": 2}}, r"optimisation\.epochs: PPO has policy\.epochs instead"),
        ({"optimisation": {"accumulation": 2}}, r"optimisation\.accumulation: PPO has policy\.minibatches instead"),
        ({"model": {"lora": {"dropout": 0.05}}}, r"model\.lora\.dropout: PPO compares likelihoods"),
        ({"sampling": {"engine": "vllm"}}, r"sampling\.engine: PPO does not pass its weights on to vLLM"),
        ({"policy": {"method": "ppo", "clip": 1.0}}, r"policy\.clip: .*less than 1"),
        ({"policy": {"method": "ppo", "kl_target": 0}}, r"policy\.kl_target: "),
        ({"policy": {"method": "ppo", "lam": 0.9}}, r"policy\.lam: "),
        ({"rewards": []}, r"rewards: policy\.method: ppo needs at least one source of rewards"),
    ],
)
def test_what_does_not_suit_is_refused_by_its_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(**changes)
