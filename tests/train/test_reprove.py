"""Artifacts of an earlier version get the readings by which a server notices a lost adapter."""

from pathlib import Path

import pytest
from train.tiny_runs import expert_run, reward_run
from typer.testing import CliRunner

from tureen_core.artifact import Artifact, open_artifact, seal_artifact
from tureen_train import reprove
from tureen_train.policies.run import train_policy
from tureen_train.rewards.run import train_reward


@pytest.fixture(params=["reward", "full reward", "expert"])
def exported(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Artifact:
    """An artifact as this version exports it."""
    full = {"model": {"lora": None}} if request.param == "full reward" else {}
    if request.param == "expert":
        artifact = train_policy(expert_run(base, tmp_path))
    else:
        artifact = train_reward(reward_run(base, tmp_path, **full))
    assert artifact is not None
    return artifact


def strip(artifact: Artifact) -> Artifact:
    """The artifact as an earlier version wrote it."""
    probes = [
        probe.model_copy(update={"scores": {name: each for name, each in probe.scores.items() if "@" not in name}})
        for probe in artifact.manifest.probes
    ]
    return seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"probes": probes}))


def test_an_artifact_of_an_earlier_version_gets_all_readings_and_keeps_its_version(exported: Artifact) -> None:
    old = strip(exported)
    result = CliRunner().invoke(reprove.app, [str(old.folder)])
    assert result.exit_code == 0, result.output
    found = open_artifact(old.folder).manifest
    assert found.version == exported.manifest.version
    assert found.tolerance == pytest.approx(exported.manifest.tolerance)
    for probe, wanted in zip(found.probes, exported.manifest.probes, strict=True):
        assert probe.scores == pytest.approx(wanted.scores, abs=1e-5)
        assert probe.logprob == (None if wanted.logprob is None else pytest.approx(wanted.logprob, abs=1e-5))


def test_a_folder_that_is_no_artifact_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(reprove.app, [str(tmp_path)])
    assert result.exit_code == 1
    assert "has no tureen.json" in result.output
