"""P-MORL's reward: each preference of a prompt is read alone and with the answer, and the mean is over those found."""

import json
from pathlib import Path

import pytest
from train.reward_sources import answers, functions, scaled

from tureen.records.dialogue import assistant_turn, user_turn
from tureen_core.calibration import Calibration
from tureen_train.config import ArtifactSource, FunctionSource, PromptPreferences, RecipeError
from tureen_train.networks.reward_reader import RewardReader, ignore_progress
from tureen_train.policies.preference_sentences import SentenceFinder, append_sentences
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.preference_rewards import NONE_FOUND, average_values
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.valuing import Value

__all__ = ["functions"]

OWN = PromptPreferences(sentences={"tone": {"kind": "Be kind.", "rude": "Be rude."}, "size": {"short": "Be brief."}})


def prompt(name: str, *poles: str) -> Prompt:
    return Prompt(name, append_sentences((user_turn("Why?"),), [OWN.by_pole[pole] for pole in poles]))


def test_the_reward_is_the_mean_of_the_answers_rewards_under_each_preference_alone(base: Path, tmp_path: Path) -> None:
    artifact = scaled(tmp_path / "one", base, ["one"], Calibration(mean=1.0, std=2.0))
    source = ArtifactSource(source="artifact", path=str(artifact.folder), preferences="each")
    whole = source.model_copy(update={"name": "whole", "preferences": "all"})
    rewarder = open_rewarder([source, whole], tmp_path / "run", preferences=OWN)
    prompts = [prompt("file:1", "kind", "short"), prompt("file:2"), prompt("file:3", "rude")]
    texts = [["a fox", "a dog"], ["leaves"], ["fall"]]
    seen: list[int] = []
    found = rewarder.reward(prompts, answers(texts), seen.append)
    assert sum(seen) == 4
    reader = RewardReader(artifact.folder, base, artifact.manifest.reading)

    def read(asked: str, answer: str) -> float:
        return (reader.score_conversations([[user_turn(asked), assistant_turn(answer)]])[0][0] - 1.0) / 2.0

    for text, each in zip(texts[0], found[0], strict=True):
        wanted = (read("Why? Be kind.", text) + read("Why? Be brief.", text)) / 2
        assert each.values["one"] == pytest.approx(wanted, abs=1e-5)
        assert each.values["whole"] == pytest.approx(read("Why? Be kind. Be brief.", text), abs=1e-5)
    assert found[0][0].values["one"] != pytest.approx(found[0][1].values["one"], abs=1e-3)  # it depends on the answer
    assert found[1][0].total is None
    assert found[1][0].error == f"one: {NONE_FOUND}"
    assert found[2][0].values["one"] == pytest.approx(read("Why? Be rude.", "fall"), abs=1e-5)
    account = json.loads((tmp_path / "run" / "account.json").read_text())["rewards"]
    assert account["further"]["one"] == {
        "prompts that state 2 preferences": 1,
        "prompts that state 0 preferences": 1,
        "prompts that state 1 preference": 1,
    }


def test_a_function_reads_each_preference_alone(functions: str, tmp_path: Path) -> None:
    source = FunctionSource(source="function", function=f"{functions}:asked", preferences="each")
    rewarder = open_rewarder([source], tmp_path / "run", preferences=OWN)
    found = rewarder.reward([prompt("file:1", "kind", "short")], answers([["a"]]), ignore_progress)
    assert found[0][0].total == (len("Why? Be kind.") + len("Why? Be brief.")) / 2


def test_prompts_without_any_preference_are_told_and_end_the_run(functions: str, tmp_path: Path) -> None:
    source = FunctionSource(source="function", function=f"{functions}:length", preferences="each")
    rewarder = open_rewarder([source], tmp_path / "run", preferences=OWN)
    with pytest.raises(ValueError, match=f"1 of 1 answers of a batch have no reward: length: {NONE_FOUND}"):
        rewarder.reward([prompt("file:1")], answers([["a"]]), ignore_progress)
    with pytest.raises(RecipeError, match="say which sentences length looks for"):
        open_rewarder([source], tmp_path / "run")


def test_the_mean_divides_by_what_was_found_and_a_failure_stays_one() -> None:
    assert average_values([Value(1.0), Value(2.0, truncated=True)]) == Value(1.5, truncated=True)
    assert average_values([Value(3.0)]) == Value(3.0)
    assert average_values([Value(1.0), Value(None, "lost")]) == Value(None, "lost")
    assert average_values([]) == Value(None, NONE_FOUND)


def test_the_finder_of_a_recipe_knows_its_own_sentences() -> None:
    assert SentenceFinder(OWN.by_pole).find_poles(prompt("file:1", "short", "kind").messages) == ["short", "kind"]
