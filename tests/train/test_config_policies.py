"""The recipes of PPO and RiC: their settings, and the settings of others that they refuse."""

from typing import Any

import pytest

from tureen_train.config import ExpertRun, PpoPolicy, RecipeError, RicPolicy, resolve_recipe

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


RIC = {"method": "ric"}
RAW = {**FUNCTION, "name": "first"}


def test_rics_defaults_are_published_but_for_the_range() -> None:
    policy = recipe(policy={**RIC, "online": {}}).policy
    assert isinstance(policy, RicPolicy)
    assert (policy.shortest, policy.max_length, policy.rounding, policy.range) == (8, 512, "published", "data")
    assert policy.clean.most == {".....": 0, ":)": 2}
    online = policy.online
    assert online is not None
    assert (online.prompts, online.original, online.quantile, online.steps) == (20_000, 10_000, 0.7, 4000)
    assert (online.desired, online.keep, online.learning_rate) == ("published", "quantile", 1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": []}, r"rewards: policy\.method: ric needs at least one source of rewards"),
        ({"rewards": [{"source": "artifact", "path": "a"}]}, r"rewards: RiC normalises raw rewards .*set scale: raw"),
        ({"rewards": [{**RAW, "weight": 2}]}, r"rewards: RiC has a tag for each reward and sums none"),
        ({"policy": {**RIC, "tokens": "special"}}, r"policy\.tokens: a LoRA has no embeddings of new tokens"),
        ({"policy": {**RIC, "tokens": "special", "tag": "{score}"}}, r"policy\.?.*tag: with tokens: special a name"),
        ({"policy": {**RIC, "clean": {"cut_at": [""]}}}, r"policy\.clean: an empty text stands in every answer"),
        ({"policy": {**RIC, "online": {"quantile": 2}}}, r"policy\.online\.quantile: "),
    ],
)
def test_what_does_not_suit_ric_is_refused_by_its_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(**{"policy": RIC, "rewards": [RAW], **changes})


def test_rics_rewards_need_no_common_unit_and_its_tokens_have_their_names() -> None:
    rewards = [RAW, {**RAW, "name": "second"}]
    assert recipe(policy=RIC, rewards=rewards).new_tokens == []
    whole = {"model": {"lora": None}, "rewards": rewards}
    assert recipe(policy={**RIC, "tokens": "special"}, **whole).new_tokens == ["<rm1_score>", "<rm2_score>"]
    named = {**RIC, "tokens": "special", "tag": "[{name}] {score} "}
    assert recipe(policy=named, **whole).new_tokens == ["[first]", "[second]"]
