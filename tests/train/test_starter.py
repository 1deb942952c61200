"""The starter artifacts: which ones, by which commands, and that only verified small ones are installed."""

from pathlib import Path

import pytest
import tiny

from tureen_core.artifact import ArtifactError, open_artifact
from tureen_train.config import FamilyRun, RewardRun, read_family, read_recipe
from tureen_train.starter import __main__ as starter
from tureen_train.starter.__main__ import install_artifact
from tureen_train.starter.plans import (
    CHEATED,
    DIALOGUES,
    DOMAINS,
    find_opposed,
    list_family_changes,
    list_first,
    list_judges,
    list_rewards,
    make_command,
)

REWARDS = list_rewards(Path("runs"))


def resolved(folder: str) -> RewardRun:
    """The recipe that a job's command line runs."""
    words = make_command(folder, Path("data"), Path("runs"))
    assert words[1:4] == ["-m", "tureen_train", "run"]
    assert words[5] == "--overwrite"
    assert words[6::2] == ["--set"] * len(words[6::2])
    run = read_recipe(words[4], words[7::2])
    assert isinstance(run, RewardRun)
    return run


def family() -> FamilyRun:
    return read_family("starter/family", list_family_changes(Path("data"), Path("out"), Path("runs")))


def test_there_are_six_reward_models_and_four_judges() -> None:
    assert set(REWARDS) == {f"rewards/{name}" for name in (*DOMAINS, *DIALOGUES)}
    assert set(list_judges()) == {f"judges/{name}" for name in DOMAINS}


@pytest.mark.parametrize("folder", [*REWARDS, *list_first(), *list_judges()])
def test_every_command_is_a_recipe_of_that_name(folder: str) -> None:
    name = folder.split("/")[-1]
    run = resolved(folder)
    assert run.name == run.objective == name
    assert run.output == f"runs/{folder}"
    assert run.data.root == "data"
    assert run.data.holdout == 0.2
    assert run.list_licences()


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domains_rewards_are_judged_against_the_other_domains_only(name: str) -> None:
    run = resolved(f"rewards/{name}")
    train, judged = run.data.train[0], run.data.eval["domains"]
    assert train.domain == judged.domain == name
    assert judged.exclude == ["normal"]
    assert judged.path == train.path


def test_one_reward_model_also_learns_that_what_cheated_an_earlier_one_is_bad() -> None:
    files = {name: [each.path for each in resolved(f"rewards/{name}").data.train] for name in DOMAINS}
    assert files.pop(CHEATED) == ["dsp/domain_specific_preference.test.json", str(find_opposed(Path("runs")))]
    assert all(len(each) == 1 for each in files.values())
    assert len(resolved(f"first/rewards/{CHEATED}").data.train) == 1


@pytest.mark.parametrize("name", DOMAINS)
def test_a_judge_learns_other_pairs_with_another_seed(name: str) -> None:
    run, first = resolved(f"judges/{name}"), resolved(f"rewards/{name}")
    assert run.data.train[0].domain == name
    assert set(run.data.train[0].exclude) == {*DOMAINS} - {name}
    assert run.optimisation.seed != first.optimisation.seed


@pytest.mark.parametrize("name", DOMAINS)
def test_an_expert_learns_from_its_packaged_reward_model_only(name: str) -> None:
    run = family().plan_expert(name, 0)
    assert [each.model_dump()["path"] for each in run.rewards] == [f"out/rewards/{name}"]
    assert (run.data.root, run.data.holdout, run.data.seed) == ("data", 0.2, resolved(f"rewards/{name}").data.seed)
    assert family().objectives[name].judge is not None
    assert run.list_licences()


def test_experts_can_be_souped() -> None:
    """One family, and the same targets and rank from one base."""
    experts = [family().plan_expert(name, 0) for name in DOMAINS]
    assert len({run.model.model_dump_json(include={"base", "lora"}) for run in experts}) == 1


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
    for folder in ("rewards/helpful", "judges/academy"):
        tiny.reward(tmp_path / "runs" / folder / "artifact", base, folder.split("/")[1], seed=1)
    trained: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, check: trained.append(words))
    wanted = ["rewards/helpful", "judges/academy"]
    starter.main(Path("data"), tmp_path / "out", tmp_path / "runs", only=wanted)
    assert trained == [make_command(each, Path("data"), tmp_path / "runs") for each in wanted]
    assert [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").glob("*/*")] == [Path("rewards/helpful")]


def test_the_experts_of_the_family_are_installed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's own command stands here for experts that are there already."""
    runs = tmp_path / "runs"
    family = read_family("starter/family", list_family_changes(Path("data"), tmp_path / "out", runs))
    for number, name in enumerate(DOMAINS):
        last = family.plan_expert(name, family.count_stages(name) - 1)
        tiny.expert(Path(last.output) / "artifact", base, name, seed=number)
    trained: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, check: trained.append(words))
    starter.main(Path("data"), tmp_path / "out", runs, only=["family"])
    assert [words[1:5] for words in trained] == [["-m", "tureen_train", "family", "starter/family"]]
    assert sorted(path.name for path in (tmp_path / "out" / "experts").iterdir()) == sorted(DOMAINS)
