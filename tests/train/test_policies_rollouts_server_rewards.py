"""Rewards of a real server: the numbers of the same artifacts in process, and what a failure there is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.rewarding import POISON, poison
from client.standin import StandIn, refusal, serving
from train.reward_sources import LONG, PROMPTS, TEXTS, answers, scaled

from tureen import Client
from tureen.records.dialogue import assistant_turn, user_turn
from tureen.retry import Retries
from tureen_core.artifact import open_artifact
from tureen_core.calibration import Calibration
from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, Settings
from tureen_train.config import ArtifactSource, RecipeError, ServerSource
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts import server_rewards
from tureen_train.policies.rollouts.artifact_rewards import complete_source, open_valuers
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.server_rewards import open_servers
from tureen_train.runs import server_calls
from tureen_train.runs.server_calls import ServerRefusal

SCALES = {"helpful": Calibration(mean=0.5, std=2.0), "harmless": Calibration(mean=-1.0, std=0.5), "bare": None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    base = tiny.base(folder / "base")
    poison(base)
    return {
        name: scaled(folder / name, base, [name], scale, seed).folder
        for seed, (name, scale) in enumerate(SCALES.items(), 1)
    }


@pytest.fixture(scope="module")
def url(folders: dict[str, Path]) -> Iterator[str]:
    entries = [RewardEntry(path=each) for each in folders.values()]
    app = create_app(Settings(rewards=entries, dtype="float32", device="cpu"))
    with serving(app, lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


def source(url: str, reward: str, **keys: Any) -> ServerSource:
    return ServerSource(source="server", url=url, reward=reward, **keys)


def test_a_server_gives_the_numbers_of_the_same_artifacts_in_process(url: str, folders: dict[str, Path]) -> None:
    talk = (user_turn("why?"), assistant_turn("because"), user_turn("no"))
    prompts = [*PROMPTS, Prompt("file:4", talk)]
    samples = answers([*TEXTS, ["x", "why " * 9, "x"]])
    wishes = {"helpful": "calibrated", "harmless": "raw", "bare": "raw"}
    (served,) = open_servers([source(url, name, scale=scale) for name, scale in wishes.items()], batch=3)
    artifacts = {str(folders[name]): open_artifact(folders[name]) for name in wishes}
    sources = [
        complete_source(
            ArtifactSource(source="artifact", path=str(folders[name]), scale=scale),
            artifacts[str(folders[name])].manifest,
        )
        for name, scale in wishes.items()
    ]
    local = open_valuers(sources, artifacts, batch=3)
    seen: list[int] = []
    over_http = served.value_samples(prompts, samples, seen.append).values
    assert sum(seen) == 9
    for valuer in local:
        in_process = valuer.value_samples(prompts, samples, ignore_progress).values
        for name, rows in in_process.items():
            for own, other in zip(rows, over_http[name], strict=True):
                assert [each.number for each in other] == pytest.approx([each.number for each in own], abs=1e-4)
                assert [each.truncated for each in other] == [each.truncated for each in own]
    assert over_http["bare"][2][0].truncated


def test_an_item_that_fails_there_has_no_value_and_the_others_keep_theirs(url: str) -> None:
    (valuer,) = open_servers([source(url, "helpful")], batch=2)
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    prompts = [PROMPTS[0], replace(PROMPTS[1], template_arguments=tools), PROMPTS[2]]
    values = valuer.value_samples(prompts, answers([["a", POISON], ["b"], ["\ud800", LONG]]), ignore_progress)
    ((good, poisoned), (refused,), (surrogate, cut)) = values.values["helpful"]
    assert good.number is not None
    assert poisoned.number is None
    assert "finite" in poisoned.error
    assert refused.number is None
    assert "tools" in refused.error
    assert surrogate.number is None
    assert "surrogate" in surrogate.error
    assert cut.number is not None
    assert cut.truncated


def test_a_reward_that_the_server_does_not_have_is_refused_by_name(url: str) -> None:
    with pytest.raises(RecipeError, match="has no reward 'humor'; it has helpful, harmless, bare"):
        open_servers([source(url, "humor")], 1)
    with pytest.raises(RecipeError, match="bare of http.* has no calibration; set scale: raw"):
        open_servers([source(url, "bare")], 1)


def test_another_model_than_at_the_start_ends_the_run(url: str) -> None:
    (valuer,) = open_servers([source(url, "helpful")], batch=1)
    assert isinstance(valuer, server_rewards.ServerValuer)
    valuer.fingerprints = {"helpful": "another"}
    with pytest.raises(ServerRefusal, match="fingerprint"):
        valuer.value_samples(PROMPTS, answers(TEXTS), ignore_progress)


def test_a_request_that_fails_for_good_leaves_its_answers_without_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_calls, "PATIENT", Retries(limit=1, first=0.01, most=0.01))
    standin = StandIn()
    with serving(standin) as address:
        rewards = [server_rewards.ServedReward("length", "length", calibrated=False)]
        valuer = server_rewards.ServerValuer(address, 30.0, rewards, {}, batch=3)
        standin.fail(refusal(503, "saturated", "too busy"))
        whole = valuer.value_samples(PROMPTS, answers(TEXTS), ignore_progress).values["length"]
        assert [each.number for each in whole[1]] == [6.0, 4.0]  # the second try
        standin.fail(refusal(503, "saturated", "too busy"), refusal(503, "saturated", "too busy"))
        lost = valuer.value_samples(PROMPTS, answers(TEXTS), ignore_progress).values["length"]
        assert {(each.number, each.error) for row in lost for each in row} == {(None, "too busy")}
        standin.fail(refusal(401, "invalid_api_key", "a key is needed"))
        with pytest.raises(ServerRefusal, match="a key is needed"):
            valuer.value_samples(PROMPTS, answers(TEXTS), ignore_progress)
