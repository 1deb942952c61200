"""Rewards by a judge: shares of wins, and which answers have none."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train.judge_server import JudgeServer, judging
from train.reward_sources import PROMPTS, answers
from train.tiny_runs import expert_recipe

from tureen_train.config import JudgeSource, RecipeError, resolve_recipe
from tureen_train.judge.language_judge import NO_VERDICT
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.judge_rewards import TOOLS, open_source_judge
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.wins import ALONE


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


def judge(server: JudgeServer, criterion: str = "pref2A", **keys: Any) -> JudgeSource:
    return JudgeSource(source="judge", url=server.url, model="m", criterion=criterion, **keys)


def test_a_judge_rewards_all_answers_of_a_batch(server: JudgeServer, tmp_path: Path) -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    prompts = [*PROMPTS, replace(PROMPTS[0], id="file:4", template_arguments=tools)]
    samples = answers([["bb", "a", "ccc"], ["unclear", "b", "b"], ["alone"], ["a", "bb"]])
    rewarder = open_rewarder([judge(server)], tmp_path)
    seen: list[int] = []
    found = rewarder.reward(prompts, samples, seen.append)
    assert sum(seen) == 9
    assert [each.total for each in found[0]] == [0.5, 1.0, 0.0]
    assert [each.total for each in found[1]] == [None, None, None]
    assert [each.error for each in found[1]] == [f"pref2A: {NO_VERDICT}"] * 3
    assert found[2][0].error == f"pref2A: {ALONE}"
    assert {each.error for each in found[3]} == {f"pref2A: {TOOLS}"}
    account = json.loads((tmp_path / "account.json").read_text())["rewards"]
    assert account["further"] == {"pref2A": {"pairs": 6, "equal answers": 1, "without a verdict": 2}}
    calls = len(server.bodies)
    again = open_rewarder([judge(server)], tmp_path)
    assert again.reward(prompts, samples, ignore_progress) == found
    assert len(server.bodies) == calls


def test_judges_share_a_scale_with_each_other_and_with_nothing_else(server: JudgeServer, tmp_path: Path) -> None:
    short, kind = judge(server, weight=2.0), judge(server, "helpfulness")
    rewarder = open_rewarder([short, kind], tmp_path)
    found = rewarder.reward(PROMPTS[:1], answers([["bb", "a"]]), ignore_progress)
    assert [each.total for each in found[0]] == [0.0, 3.0]
    both = [short.model_dump(), {"source": "server", "url": server.url, "reward": "helpful"}]
    with pytest.raises(
        RecipeError, match="pref2A is measured in shares of wins, so it has no common scale with helpful"
    ):
        resolve_recipe(expert_recipe(tmp_path, tmp_path, policy={"method": "rejection"}, rewards=both))


def test_a_recipe_gives_a_judge_something_to_compare_and_a_name(server: JudgeServer, tmp_path: Path) -> None:
    def resolved(source: dict[str, Any], **sampling: Any) -> None:
        keys = {"source": "judge", "url": server.url, "model": "m", **source}
        raw = expert_recipe(tmp_path, tmp_path, policy={"method": "rejection"}, rewards=[keys], sampling=sampling)
        resolve_recipe(raw)

    resolved({"criterion": "pref1A"})
    with pytest.raises(RecipeError, match=r"sampling\.count: a judge compares the answers to a prompt"):
        resolved({"criterion": "pref1A"}, count=1)
    with pytest.raises(RecipeError, match=r"rewards\.0: name: give the reward a name"):
        resolved({"criterion": "Which is kinder?"})
    resolved({"criterion": "Which is kinder?", "name": "kindness"})
    with pytest.raises(RecipeError, match=r"rewards\.0\.scale"):
        resolved({"criterion": "pref1A", "scale": "calibrated"})


def test_a_judge_of_a_recipe_is_asked_as_its_source_says(server: JudgeServer, tmp_path: Path) -> None:
    source = judge(server, "Which is kinder?", name="kind", orders="once", temperature=None, max_tokens=99)
    found = open_source_judge(source, tmp_path / "judgements.jsonl")
    asked = found.configuration
    assert (asked.criterion, asked.orders, asked.reasons) == ("Which is kinder?", "once", True)
    assert asked.settings == {"max_tokens": 99}
    assert (found.endpoint.url, found.endpoint.model, found.most_unparsed) == (server.url, "m", 1.0)
    with pytest.raises(RecipeError, match="'kindness' is none of"):
        open_source_judge(judge(server, "kindness"), tmp_path / "judgements.jsonl")
