"""A tiny family from its recipe to a folder that is served: trained, measured, reported, exported, and gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_runs import LORA, records, reward_run
from typer.testing import CliRunner, Result

from tureen_core.artifact import open_artifact
from tureen_serve.settings import load_settings
from tureen_train.__main__ import app
from tureen_train.rewards.run import train_reward

NAMES = ("foxes", "wolves")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["family", *map(str, arguments)])


@pytest.fixture(scope="module")
def recipe(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two experts, with the reward models that measure them."""
    folder = tmp_path_factory.mktemp("family")
    data = {"train": [{"path": str(records(folder))}], "holdout": 0.3, "pairs_per_prompt": 1}
    rewards = {}
    for number, name in enumerate(NAMES):
        run = reward_run(base, folder, name=name, output=str(folder / name), optimisation={"seed": number})
        train_reward(run)
        rewards[name] = {"source": "artifact", "path": str(folder / name / "artifact")}
    raw: dict[str, Any] = {
        "kind": "family",
        "name": "zoo",
        "objectives": {
            "foxes": {"reward": rewards["foxes"], "judge": rewards["wolves"]},
            "wolves": {"reward": rewards["wolves"], "expert": {"optimisation": {"seed": 3}}},
        },
        "expert": {
            "data": data,
            "model": {"base": str(base), "lora": LORA, "precision": "fp32"},
            "policy": {"max_length": 64},
            "optimisation": {"learning_rate": 5e-3, "max_steps": 4, "batch": 4, "seed": 7},
            "probes": 2,
        },
        "measure": {"count": 3, "steps": 3, "sampling": {"count": 1, "max_tokens": 6, "temperature": 0}},
        "presets": {"even": {"foxes": 0.5, "wolves": 0.5}},
        "output": str(folder / "zoo"),
    }
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def made(recipe: Path) -> Path:
    result = call(recipe)
    assert result.exit_code == 0, result.output
    return recipe.parent / "zoo"


def test_the_experts_are_measured_alone_and_in_a_sweep(made: Path) -> None:
    lines = [json.loads(line) for line in (made / "measured" / "answers.jsonl").read_text().splitlines()]
    mixes = list(dict.fromkeys(line["mix"] for line in lines))
    assert mixes == ["base", "foxes=1", "wolves=1", "foxes=0.5+wolves=0.5"]
    assert len(lines) == 3 * len(mixes)
    assert all(set(line["rewards"]) >= {"foxes", "wolves"} for line in lines)
    assert {line["mix"] for line in lines if "foxes-judge" in line["rewards"]} >= {"base", "foxes=1"}
    assert all((line["kl"] is not None and line["kl"] > 0) == line["mix"].endswith("=1") for line in lines)
    results = json.loads((made / "measured" / "results.json").read_text())
    assert set(results["experts"]["foxes"]["gains"]) == set(NAMES)
    assert results["experts"]["wolves"]["judged"] is None
    gain = results["means"]["wolves=1"]["foxes"] - results["means"]["base"]["foxes"]
    assert results["experts"]["wolves"]["gains"]["foxes"]["value"] == pytest.approx(gain)
    assert results["sweeps"][0]["weights"] == [0.0, 0.5, 1.0]
    assert (made / "measured" / "sweeps.png").stat().st_size > 5000
    assert "second judge" in (made / "measured" / "report.md").read_text()


def test_the_export_is_what_a_server_reads(made: Path) -> None:
    family = made / "family"
    settings = load_settings(family / "server.yaml")
    assert [each.name for each in settings.families] == ["zoo"]
    assert [expert.path for expert in settings.families[0].experts] == [family / "experts" / name for name in NAMES]
    assert settings.families[0].presets == {"even": {"foxes": 0.5, "wolves": 0.5}}
    assert [open_artifact(family / "rewards" / name).name for name in NAMES] == list(NAMES)


def test_nothing_is_done_twice(recipe: Path, made: Path) -> None:
    stages = [made / name / "stage-1" / "artifact" / "tureen.json" for name in NAMES]
    answers = made / "measured" / "answers.jsonl"
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in (*stages, answers)]
    assert call(recipe).exit_code == 0
    assert before == [(path.stat().st_mtime_ns, path.read_bytes()) for path in (*stages, answers)]


def test_another_recipe_in_the_same_folder_is_refused(recipe: Path, made: Path) -> None:
    result = call(recipe, "--set", "expert.optimisation.learning_rate=0.01")
    assert result.exit_code == 1
    assert "holds a run of another recipe: delete it, or name another folder in output" in result.output
    result = call(recipe, "--set", "measure.count=2")
    assert result.exit_code == 1
    assert "holds a measurement of other experts or prompts" in result.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "nowhere"}, "nowhere"),
        ({"objective": "bears"}, "has no objective 'bears'; it has foxes"),
    ],
)
def test_a_reward_that_cannot_measure_is_told_before_anything_is_trained(
    changes: dict[str, str], said: str, recipe: Path, tmp_path: Path
) -> None:
    sets = [word for key, value in changes.items() for word in ("--set", f"objectives.foxes.reward.{key}={value}")]
    result = call(recipe, "--set", f"output={tmp_path / 'new'}", *sets)
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "new" / "foxes").exists()


def test_measuring_only_needs_trained_experts(recipe: Path, tmp_path: Path) -> None:
    result = call(recipe, "--measure-only", "--set", f"output={tmp_path / 'new'}")
    assert result.exit_code == 1
    assert "foxes is not trained" in result.output
