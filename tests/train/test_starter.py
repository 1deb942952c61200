"""The starter artifacts: which ones, by which commands, and that only verified small ones are installed."""

from pathlib import Path

import pytest
import tiny

from tureen_core.artifact import ArtifactError, open_artifact
from tureen_train import starter
from tureen_train.config import ExpertRun, RewardRun, read_recipe
from tureen_train.starter import DIALOGUES, DOMAINS, install_artifact, list_jobs, make_command


def resolved(folder: str) -> RewardRun | ExpertRun:
    """The recipe that a job's command line runs."""
    words = make_command(folder, Path("data"), Path("runs"))
    assert words[1:4] == ["-m", "tureen_train", "run"]
    assert words[5] == "--overwrite"
    assert words[6::2] == ["--set"] * len(words[6::2])
    return read_recipe(words[4], words[7::2])


def test_there_are_six_reward_models_and_four_experts() -> None:
    names = {f"rewards/{name}" for name in (*DOMAINS, *DIALOGUES)} | {f"experts/{name}" for name in DOMAINS}
    assert set(list_jobs()) == names
    assert len(names) == 10


@pytest.mark.parametrize("folder", list_jobs())
def test_every_command_is_a_recipe_of_that_name(folder: str) -> None:
    kind, name = folder.split("/")
    run = resolved(folder)
    assert run.kind == kind.removesuffix("s")
    assert run.name == run.objective == name
    assert run.output == f"runs/{folder}"
    assert run.data.root == "data"
    assert run.data.holdout == 0.2
    assert run.model.precision == "bf16"
    assert run.licences


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domains_rewards_are_judged_against_the_other_domains_only(name: str) -> None:
    run = resolved(f"rewards/{name}")
    (train,), judged = run.data.train, run.data.eval["domains"]
    assert train.domain == judged.domain == name
    assert judged.exclude == ["normal"]
    assert judged.path == train.path


def test_experts_can_be_souped() -> None:
    """One family, and the same targets and rank from one base."""
    runs = [resolved(f"experts/{name}") for name in DOMAINS]
    assert all(isinstance(run, ExpertRun) for run in runs)
    assert len({run.family for run in runs if isinstance(run, ExpertRun)}) == 1
    assert len({run.model.model_dump_json() for run in runs}) == 1
    assert [run.data.train[0].domain for run in runs] == list(DOMAINS)


# --------------------------------------------------------------------------- installing


def test_a_verified_artifact_takes_the_place_of_an_older_one(base: Path, tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "new", base, "academy", seed=1)
    target = tmp_path / "package" / "rewards" / "academy"
    target.mkdir(parents=True)
    (target / "stale").write_text("x")
    install_artifact(artifact.folder, target)
    assert open_artifact(target).manifest == artifact.manifest
    assert not (target / "stale").exists()


def test_a_changed_artifact_is_not_installed(base: Path, tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "new", base, "academy", seed=1)
    (artifact.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="adapter_config.json has changed"):
        install_artifact(artifact.folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_large_artifact_is_not_installed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny.reward(tmp_path / "new", base, "academy", seed=1)
    monkeypatch.setattr(starter, "LARGEST", 1000)
    with pytest.raises(ValueError, match="may have 1000 at most"):
        install_artifact(artifact.folder, tmp_path / "target")


def test_only_what_is_asked_for_is_trained(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training itself stands in a process of its own, and here for an artifact that is there already."""
    tiny.reward(tmp_path / "runs" / "rewards" / "helpful" / "artifact", base, "helpful", seed=1)
    trained: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, check: trained.append(words))
    starter.main(Path("data"), tmp_path / "out", tmp_path / "runs", only=["rewards/helpful"])
    assert trained == [make_command("rewards/helpful", Path("data"), tmp_path / "runs")]
    assert [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").glob("*/*")] == [Path("rewards/helpful")]
