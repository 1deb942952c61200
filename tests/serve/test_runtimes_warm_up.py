"""Speeds are known before the first request, at a bounded cost, and nothing of the measurement stays."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from serve.artifacts import build

from tureen.errors import ServerFault
from tureen_serve.engine_loading import load_engine
from tureen_serve.inference.lane import ignore_run
from tureen_serve.runtimes import warm_up
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels
from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.warm_up import measure_backbone, measure_policy, measure_speeds
from tureen_serve.settings import Settings, load_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(build(tmp_path_factory.mktemp("artifacts")))


@pytest.fixture(scope="module")
def loaded(settings: Settings) -> Iterator[LoadedModels]:
    found = load_models(settings.rewards, settings.families, LoadOptions(dtype="float32", device="cpu"))
    yield found
    found.close()


def spy(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, error: Exception | None = None) -> list[tuple[int, bool]]:
    """The rows of each batch, and whether it was fresh."""
    batches: list[tuple[int, bool]] = []
    run: Any = backbone.scorer.run

    def count(rows: Any, fresh: bool = False) -> Any:
        batches.append((len(rows), fresh))
        if error is not None:
            raise error
        return run(rows, fresh)

    monkeypatch.setattr(backbone.scorer, "run", count)
    return batches


def test_a_backbone_is_measured_in_three_batches_that_keep_its_limits(
    loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    (backbone,) = loaded.backbones
    for limits in (backbone.scorer.limits, BatchLimits(8192, 5), BatchLimits(40, 64)):
        with monkeypatch.context() as patch:
            patch.setattr(backbone.scorer, "limits", limits)
            batches = spy(patch, backbone)
            assert measure_backbone(backbone) > 0
        assert len(batches) in (2, 3)
        assert max(rows for rows, _ in batches) <= limits.batch_rows
        assert all(fresh for _, fresh in batches)


def test_a_family_is_measured_in_few_steps_and_no_text_is_left(
    loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    (policy,) = loaded.policies
    stepper: Any = policy.runtime
    steps: list[int] = []
    step = stepper.step

    def count() -> Any:
        said = step()
        steps.append(len(said))
        return said

    monkeypatch.setattr(stepper, "step", count)
    assert measure_policy(policy) > 0
    assert len(steps) in (8, 12)
    assert max(steps) <= warm_up.TEXTS[1]
    assert (stepper.active, stepper.running, stepper.waiting) == (False, 0, 0)


def test_what_cannot_be_measured_is_served_all_the_same(
    loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (backbone,) = loaded.backbones
    assert spy(monkeypatch, backbone, ServerFault("no memory")) == []
    found = measure_speeds(loaded)
    assert found.backbones[0].speed == 0
    assert found.policies[0].speed > 0
    assert "the speed of base-scores could not be measured: no memory" in caplog.text
    artifact = backbone.rewards[0].artifact
    bare = replace(artifact, manifest=artifact.manifest.model_copy(update={"probes": []}))
    reward = replace(backbone.rewards[0], artifact=bare)
    assert measure_backbone(replace(backbone, rewards=(reward,))) == 0


def test_lanes_know_their_speed_before_the_first_request(settings: Settings) -> None:
    engine = load_engine(settings, ignore_run)
    for lane in (*engine.scorers, *engine.generators):
        assert lane.speed.recent > 0
        assert lane.speed.find_wait(round(7 * lane.speed.recent)) in (7, 8)
    asyncio.run(engine.close())
