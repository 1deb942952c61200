"""Each packaged recipe of a policy, as it is but for its sizes, base, data and rewards, trains and is exported."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from train import tiny_encoder
from train.reward_sources import scaled
from train.tiny_runs import LORA, records
from typer.testing import CliRunner

from tureen_core.artifact import open_artifact
from tureen_core.calibration import Calibration
from tureen_train.__main__ import app
from tureen_train.config import RECIPES, ExpertRun, list_recipes, read_any, read_recipe
from tureen_train.policies.methods import METHODS

pytestmark = pytest.mark.long

ONLY_SAMPLED = ("rlphf/rollouts", "starter/own-answers")
ROUNDS = {"rounds": 1, "prompts": 4}
SIZES: dict[str, dict[str, int]] = {
    "ppo": {"steps": 1, "prompts": 3, "epochs": 1, "minibatches": 1},
    "rejection": ROUNDS,
    "iterative-dpo": ROUNDS,
}


def list_policies() -> list[str]:
    """The packaged recipes of policies by methods of this version, and not those that are only sampled from."""
    found = {name: read_any(name) for name in list_recipes()}
    return [
        name
        for name, run in found.items()
        if isinstance(run, ExpertRun) and run.policy.method in METHODS and name not in ONLY_SAMPLED
    ]


def shrink(name: str, base: Path, folder: Path) -> dict[str, Any]:
    """A recipe at the size of a test."""
    raw: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    method = raw["policy"]["method"]
    model, lora = raw["model"], raw["model"].get("lora", {})
    raw["data"] = {"train": [{"path": str(records(folder))}], "holdout": 0.3}
    raw["model"] = {"base": str(base), "lora": lora and LORA, "precision": "fp32"} | {
        key: model[key] for key in ("gradient_checkpointing",) if key in model
    }
    raw["policy"] |= {"max_length": 480, **SIZES.get(method, {})}
    if "online" in raw["policy"]:
        raw["policy"]["online"] |= {**ROUNDS, "original": 4, "steps": 2}
    if "constraint" in raw["policy"] and raw["policy"]["constraint"]["prior"] == "cosine":
        raw["policy"]["constraint"]["encoder"] = str(tiny_encoder.bert(folder / "encoder"))
    for place, source in enumerate(raw.get("rewards", [])):
        reward = scaled(folder / f"reward{place}", base, [Path(source["path"]).name + str(place)], Calibration())
        source["path"] = str(reward.folder)
    if "sampling" in raw:
        raw["sampling"] |= {"max_tokens": 6, "min_tokens": 2, "max_prompt": 440, "batch": 6}
        raw["sampling"]["count"] = min(3, raw["sampling"]["count"])
    raw["optimisation"] |= {"batch": 2, "learning_rate": 1e-3, "warmup": 0}
    if method != "ppo":
        raw["optimisation"] |= {"max_steps": 2, "accumulation": 1}
    raw.pop("scale", None)
    return {**raw, "output": str(folder / "run")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", list_policies())
def test_a_recipe_trains_and_its_artifact_is_whole(name: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(shrink(name, base, tmp_path)))
    outcome = CliRunner().invoke(app, ["run", str(path)])
    assert outcome.exit_code == 0, outcome.output
    artifact = open_artifact(tmp_path / "run" / "artifact")
    run = read_recipe(name)
    assert isinstance(run, ExpertRun)
    kind = "expert" if run.model.lora and not run.policy.steers_by_prompt else "policy"
    assert (artifact.manifest.kind, artifact.manifest.weights) == (kind, "lora" if run.model.lora else "full")
