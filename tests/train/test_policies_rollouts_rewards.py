"""The weighted sum of several rewards: its weights, its scales, and what a failure does."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train.reward_sources import PROMPTS, TEXTS, answers, functions, scaled
from train.tiny_runs import expert_recipe

from tureen_core.calibration import Calibration
from tureen_train.config import ArtifactSource, FunctionSource, RecipeError, RewardSource, resolve_recipe
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt, Reward
from tureen_train.policies.rollouts.reward_sum import MOST_REASONS, RewardCounts
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.valuing import RewardError, Value

__all__ = ["functions"]

SAMPLES = answers(TEXTS)
LENGTHS = [[float(len(text)) for text in row] for row in TEXTS]
VOWELS = [[float(sum(map(text.count, "aeiou"))) for text in row] for row in TEXTS]


def function(module: str, name: str, **keys: Any) -> FunctionSource:
    return FunctionSource(source="function", function=f"{module}:{name}", **{"scale": "calibrated", **keys})


def rewarded(
    sources: Sequence[RewardSource], folder: Path, prompts: Sequence[Prompt] = PROMPTS, **keys: Any
) -> list[list[Reward]]:
    return open_rewarder(sources, folder, **keys).reward(prompts, SAMPLES, ignore_progress)


def test_a_reward_is_the_weighted_sum_in_the_order_of_the_recipe(functions: str, base: Path, tmp_path: Path) -> None:
    folder = scaled(tmp_path / "one", base, ["one"], Calibration(mean=0.5, std=2.0)).folder
    artifact = ArtifactSource(source="artifact", path=str(folder), weight=-3.0)
    rewarder = open_rewarder([function(functions, "length", weight=0.5), artifact], tmp_path / "run", batch=2)
    assert list(rewarder.names) == ["length", "one"]
    seen: list[int] = []
    found = rewarder.reward(PROMPTS, SAMPLES, seen.append)
    assert sum(seen) == 6
    assert [len(row) for row in found] == [3, 2, 1]
    for row, lengths in zip(found, LENGTHS, strict=True):
        for each, length in zip(row, lengths, strict=True):
            assert each.values["length"] == length
            assert each.total == pytest.approx(0.5 * length - 3.0 * each.values["one"])


def test_only_the_rewards_that_are_wanted_are_computed_and_all_are_counted(functions: str, tmp_path: Path) -> None:
    rewarder = open_rewarder([function(functions, "length"), function(functions, "vowels")], tmp_path / "run")
    found = rewarder.narrow(["length"]).reward(PROMPTS, SAMPLES, ignore_progress)
    assert [[dict(each.values) for each in row] for row in found] == [
        [{"length": each} for each in row] for row in LENGTHS
    ]
    rewarder.reward(PROMPTS, SAMPLES, ignore_progress)
    assert rewarder.counts.answers == 12
    assert json.loads((tmp_path / "run" / "account.json").read_text())["rewards"]["answers"] == 12


def test_a_prompt_with_weights_of_its_own_is_rewarded_by_them(functions: str, tmp_path: Path) -> None:
    sources = [function(functions, "length"), function(functions, "asked", weight=10.0)]
    prompts = [replace(PROMPTS[0], weights={"asked": 2.0}), *PROMPTS[1:]]
    found = rewarded(sources, tmp_path / "run", prompts)
    assert [each.total for each in found[0]] == [8.0, 8.0, 8.0]
    assert [each.total for each in found[1]] == [len(text) + 50.0 for text in TEXTS[1]]
    wrong = [replace(PROMPTS[0], weights={"humor": 1.0}), *PROMPTS[1:]]
    with pytest.raises(RecipeError, match="file:1 weighs 'humor', which is none of the rewards: length, asked"):
        rewarded(sources, tmp_path / "run", wrong)
    endless = [replace(PROMPTS[0], weights={"length": float("nan")}), *PROMPTS[1:]]
    with pytest.raises(RecipeError, match="file:1 gives length the weight nan"):
        rewarded(sources, tmp_path / "run", endless)


def test_an_answer_of_which_one_reward_fails_has_no_reward(
    functions: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = [function(functions, "length"), function(functions, "vowels")]
    rewarder = open_rewarder(sources, tmp_path / "run")
    with caplog.at_level(logging.WARNING, "tureen.train"):
        found = rewarder.reward(PROMPTS, SAMPLES, ignore_progress)
    failed = found[0][2]
    why = f"{functions}:vowels returned None"
    assert failed == Reward({"length": 0.0}, None, f"vowels: {why}")
    others = [each for row in found for each in row if each is not failed]
    assert all(each.total is not None and set(each.values) == {"length", "vowels"} for each in others)
    assert f"1 of 6 answers have no reward: vowels: {why} (1)" in caplog.text
    rewarder.reward(PROMPTS, SAMPLES, ignore_progress)
    wanted = {
        "answers": 12,
        "without_reward": 2,
        "truncated": {"length": 0, "vowels": 0},
        "failed": {"length": {}, "vowels": {why: 2}},
        "further": {},
    }
    assert json.loads((tmp_path / "run" / "account.json").read_text())["rewards"] == wanted
    resumed = open_rewarder(sources, tmp_path / "run", resume=True)
    resumed.reward(PROMPTS[1:], SAMPLES[1:], ignore_progress)
    assert (resumed.counts.answers, resumed.counts.without_reward) == (15, 2)


def test_a_batch_whose_rewards_were_counted_but_not_noted_before_a_kill_counts_once(
    functions: str, tmp_path: Path
) -> None:
    sources = [function(functions, "vowels")]
    open_rewarder(sources, tmp_path / "run").reward(PROMPTS[:1], SAMPLES[:1], ignore_progress)
    open_rewarder(sources, tmp_path / "run", resume=True).reward(PROMPTS[1:], SAMPLES[1:], ignore_progress)
    resumed = open_rewarder(sources, tmp_path / "run", resume=True)
    resumed.reward(PROMPTS[1:], SAMPLES[1:], ignore_progress)
    assert resumed.counts.answers == 6
    resumed.reward(PROMPTS[1:], SAMPLES[1:], ignore_progress)  # the same answers again, of a later step
    assert resumed.counts.answers == 9


def test_texts_that_were_cut_are_counted(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = scaled(tmp_path / "one", base, ["one"], Calibration()).folder
    rewarder = open_rewarder([ArtifactSource(source="artifact", path=str(folder))], tmp_path / "run")
    rewarder.reward(PROMPTS, SAMPLES, ignore_progress)
    assert rewarder.counts.truncated == {"one": 1}
    assert "one: 1 of 6 texts are longer than the reward model reads, and were cut" in caplog.text


def test_too_many_failures_end_the_run(functions: str, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"6 of 6 answers of a batch have no reward: lost: .*raised KeyError"):
        rewarded([function(functions, "lost")], tmp_path / "run")
    assert json.loads((tmp_path / "run" / "account.json").read_text())["rewards"]["without_reward"] == 6
    some = [function(functions, "vowels")]
    assert rewarded(some, tmp_path / "run", failed_share=0.2)[0][2].total is None
    with pytest.raises(RewardError, match="1 of 6 answers .*; mend the cause and go on with --resume, or raise"):
        rewarded(some, tmp_path / "run", failed_share=1 / 6)


def test_many_different_reasons_do_not_fill_the_account() -> None:
    counts = RewardCounts()
    values = [Value(None, f"reason {number}") for number in range(MOST_REASONS + 5)]
    counts.add([Reward({}, None, each.error) for each in values], {"a": values}, {})
    assert len(counts.failed["a"]) == MOST_REASONS + 1
    assert counts.failed["a"]["other reasons"] == 5


def test_rewards_without_a_common_scale_are_not_summed(functions: str, base: Path, tmp_path: Path) -> None:
    raw = function(functions, "length", scale="raw")
    with pytest.raises(RecipeError, match="length is not calibrated, so it has no common scale with vowels"):
        rewarded([function(functions, "vowels"), raw], tmp_path / "run")
    with pytest.raises(RecipeError, match="length is not calibrated"):
        rewarded([raw, function(functions, "asked", scale="raw")], tmp_path / "run")
    logged = raw.model_copy(update={"weight": 0.0})
    found = rewarded([function(functions, "asked"), logged], tmp_path / "run")
    assert [each.total for each in found[1]] == [5.0, 5.0]
    assert [each.values["length"] for each in found[1]] == LENGTHS[1]
    weighed = [replace(PROMPTS[0], weights={"asked": 1.0, "length": 1.0}), *PROMPTS[1:]]
    with pytest.raises(RecipeError, match="length is not calibrated"):
        rewarded([function(functions, "asked"), logged], tmp_path / "run", weighed)


def test_two_rewards_of_one_name_are_refused(base: Path, tmp_path: Path) -> None:
    folders = [scaled(tmp_path / name / "same", base, ["same"], Calibration(), 1).folder for name in "ab"]
    sources = [ArtifactSource(source="artifact", path=str(each)) for each in folders]
    with pytest.raises(RecipeError, match="two are called 'same'; give one of them another name"):
        open_rewarder(sources, tmp_path / "run")
    other = sources[1].model_copy(update={"name": "other"})
    assert list(open_rewarder([sources[0], other], tmp_path / "run").names) == ["same", "other"]


@pytest.mark.parametrize("name", ["std", "helpful_std"])
def test_a_reward_with_the_name_of_a_deviation_is_refused(base: Path, tmp_path: Path, name: str) -> None:
    """``reward_std`` and ``reward_helpful_std`` are figures of the log."""
    folder = scaled(tmp_path / "artifact", base, ["helpful"], Calibration(), 1).folder
    source = ArtifactSource(source="artifact", path=str(folder), name=name)
    with pytest.raises(RecipeError, match=f"'{name}' is the name of a deviation"):
        open_rewarder([source], tmp_path / "run")


def test_a_recipe_is_checked_before_anything_is_opened(base: Path, tmp_path: Path) -> None:
    def resolved(*rewards: dict[str, Any]) -> None:
        resolve_recipe(expert_recipe(base, tmp_path, policy={"method": "rejection"}, rewards=list(rewards)))

    server = {"source": "server", "url": "http://localhost:1", "reward": "helpful"}
    with pytest.raises(RecipeError, match="two are called 'helpful'"):
        resolved(server, server)
    with pytest.raises(RecipeError, match="all weights are 0"):
        resolved({**server, "weight": 0})
    with pytest.raises(RecipeError, match="f is not calibrated, so it has no common scale with helpful"):
        resolved(server, {"source": "function", "function": "m:f"})
    with pytest.raises(RecipeError, match=r"rewards\.1\.weight: "):
        resolved(server, {**server, "name": "other", "weight": float("nan")})
    with pytest.raises(RecipeError, match=r"rewards\.0: function: write it as module:function"):
        resolved({"source": "function", "function": "m"})
