"""TRL's GRPOTrainer trains a tiny policy on rewards of a live server, and goes on or stops where they are lost."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.rewarding import OBJECTIVES, POISON, rewarding
from client.standin import free_url
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from tureen import Client, Retries
from tureen.adapters.trl import AsyncRewardFunction, RewardFunction, async_reward_functions, reward_functions

PLAIN = ["Why do leaves fall?", "What is a fox?"]
TALKS = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in PLAIN]
WEIGHTS = {"helpful": 0.75, "harmless": 0.25}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rewarding(tmp_path_factory.mktemp("rewarding")) as address:
        yield address


def trained(folder: Path, functions: Any, prompts: Sequence[Any], **config: Any) -> GRPOTrainer:
    """A trainer that has trained a tiny policy for two steps of two groups of four.

    What it samples is random bytes, so that now and then one is ``POISON`` and a row fails.
    """
    base = tiny.base(folder / "policy", seed=7)
    arguments = GRPOConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        bf16=False,
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        gradient_checkpointing=False,
        learning_rate=1e-2,
        **config,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        processing_class=tiny.tokenizer(),
        reward_funcs=functions,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": list(prompts) * 4, "label": ["x"] * 4 * len(prompts)}),
    )
    trainer.train()
    return trainer


def direct(url: str, prompts: Sequence[Any], answers: Sequence[Any]) -> list[Any]:
    """The scored candidates of one item a row, weighed."""
    items = [{"prompt": prompt, "candidates": [answer]} for prompt, answer in zip(prompts, answers, strict=True)]
    with Client(url) as client:
        return [row.candidates[0] for row in client.score(items, preferences=WEIGHTS, on_error="item").data]


def logged(trainer: GRPOTrainer, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if name in row]


@pytest.mark.parametrize("make", [reward_functions, async_reward_functions], ids=["blocking", "asynchronous"])
@pytest.mark.parametrize("prompts", [PLAIN, TALKS], ids=["text", "messages"])
def test_grpo_trains_on_two_weighed_objectives(url: str, tmp_path: Path, make: Any, prompts: Sequence[Any]) -> None:
    trainer = trained(tmp_path, make(OBJECTIVES, base_url=url), prompts, reward_weights=list(WEIGHTS.values()))
    assert trainer.state.global_step == 2
    logs = trainer._logs
    rows = direct(url, logs["prompt"], logs["completion"])
    for name in OBJECTIVES:
        expected = [row.scores[name].calibrated if row.scores else math.nan for row in rows]
        assert list(logs["rewards"][name]) == pytest.approx(expected, abs=1e-3, nan_ok=True)
        assert logged(trainer, f"{name}/failed")[-1] == sum(row.scores is None for row in rows) / len(rows)
    sums = [row.reward for row in rows if row.reward is not None]
    assert logged(trainer, "reward")[-1] == pytest.approx(sum(sums) / len(sums), abs=1e-3)
    assert any(logged(trainer, "grad_norm"))


def test_grpo_goes_on_without_the_rows_that_failed(url: str, tmp_path: Path) -> None:
    trainer = trained(tmp_path, reward_functions(OBJECTIVES, base_url=url), [PLAIN[0], f"What is {POISON}?"])
    advantages = list(trainer._logs["advantages"])
    failed = [math.isnan(reward) for reward in trainer._logs["rewards"]["helpful"]]
    assert sum(failed) >= 4
    assert [advantage == 0.0 for advantage in advantages] == failed
    assert all(0 < norm < math.inf for norm in logged(trainer, "grad_norm"))


def test_trl_counts_a_reward_that_is_missing_beside_another_as_nothing(url: str, tmp_path: Path) -> None:
    def five(prompts: Sequence[Any], **_: object) -> list[float]:
        return [5.0] * len(prompts)

    trainer = trained(tmp_path, [RewardFunction("helpful", base_url=url), five], [f"What is {POISON}?"] * 2)
    assert logged(trainer, "helpful/failed") == [1.0, 1.0]
    assert logged(trainer, "reward") == [5.0, 5.0]


def test_grpo_learns_nothing_from_a_batch_whose_rewards_are_lost(tmp_path: Path) -> None:
    function = RewardFunction("helpful", base_url=free_url(), retries=Retries(limit=0))
    trainer = trained(tmp_path, function, PLAIN)
    assert logged(trainer, "helpful/failed") == [1.0, 1.0]
    assert logged(trainer, "grad_norm") == [0.0, 0.0]
    assert set(trainer._logs["advantages"]) == {0.0}


def test_grpo_stops_where_a_lost_batch_is_to_be_raised(tmp_path: Path) -> None:
    function = AsyncRewardFunction("helpful", base_url=free_url(), retries=Retries(limit=0), on_failure="raise")
    with pytest.raises(Exception, match="no server answers"):
        trained(tmp_path, function, PLAIN)
