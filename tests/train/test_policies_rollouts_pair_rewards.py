"""Rewards by a pairwise model in process: mean probabilities of winning, in both orders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train.reward_sources import LONG, PROMPTS, answers
from train.test_evaluation_pairwise_models import TEMPERATURE, comparer

from tureen.records.dialogue import assistant_turn
from tureen_core.artifact import open_artifact
from tureen_core.calibration import compute_sigmoid
from tureen_core.pair_texts import render_pair
from tureen_train.config import ArtifactSource, FunctionSource, RecipeError
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.wins import ALONE

TEXTS = [["a fox", "a dog", "leaves"], ["same", "same"], ["alone"], [LONG, "fall"]]


def source(folder: Path, **keys: Any) -> ArtifactSource:
    return ArtifactSource(source="artifact", path=str(folder), **keys)


def test_a_pairwise_model_gives_the_mean_probability_over_opponents_and_orders(base: Path, tmp_path: Path) -> None:
    folder = comparer(tmp_path, base).folder
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    prompts = [*PROMPTS, replace(PROMPTS[0], id="file:4"), replace(PROMPTS[0], id="file:5", template_arguments=tools)]
    samples = answers([*TEXTS, ["a", "b"]])
    seen: list[int] = []
    plain, cold = open_rewarder([source(folder), source(folder, name="raw", scale="raw")], tmp_path / "run").names
    rewarder = open_rewarder([source(folder), source(folder, name="raw", scale="raw", weight=0.0)], tmp_path / "run")
    found = rewarder.reward(prompts, samples, seen.append)
    assert sum(seen) == 10
    reader = RewardReader(folder, base, open_artifact(folder).manifest.reading)

    def beats(prompt: int, one: str, other: str, temperature: float) -> float:
        both = [(one, other), (other, one)]
        texts = [
            render_pair(reader.renderer, prompts[prompt].messages, [assistant_turn(a)], [assistant_turn(b)])
            for a, b in both
        ]
        forward, backward = (row[0] / temperature for row in reader.score_texts(texts))
        return (compute_sigmoid(forward) + 1 - compute_sigmoid(backward)) / 2

    for name, temperature in ((plain, TEMPERATURE), (cold, 1.0)):
        for one, each in zip(TEXTS[0], found[0], strict=True):
            wanted = sum(beats(0, one, other, temperature) for other in TEXTS[0] if other != one) / 2
            assert each.values[name] == pytest.approx(wanted, abs=1e-6)
    assert [each.total for each in found[1]] == [0.5, 0.5]
    assert found[2][0].error == f"{plain}: {ALONE}; {cold}: {ALONE}"
    assert rewarder.counts.truncated == {plain: 2, cold: 2}
    assert all(each.total is None and "tools" in each.error for each in found[4])


def test_shares_of_wins_are_not_added_to_other_rewards(base: Path, tmp_path: Path) -> None:
    folder = comparer(tmp_path, base).folder
    other = FunctionSource(source="function", function="math:hypot", scale="calibrated")
    with pytest.raises(RecipeError, match="duel is measured in shares of wins, so it has no common scale with hypot"):
        open_rewarder([source(folder), other], tmp_path / "run")
