"""Train the experts of a family, one after the other, each stage in a process of its own."""

import logging
import subprocess
import sys
from pathlib import Path

from tureen_core.artifact import MANIFEST, open_artifact
from tureen_train.config import ExpertRun, FamilyRun, RecipeError, format_recipe, read_recipe
from tureen_train.runs.launch import can_resume

log = logging.getLogger("tureen.train")


def train_experts(family: FamilyRun) -> dict[str, Path]:
    """Train all stages of all experts that are not finished. Returns the last artifact of each expert.

    A stage that was broken off goes on from its last checkpoint or round, if it left one.

    Raises:
        RecipeError: a stage failed, or a finished one was trained by another recipe.
    """
    found = {}
    for objective in family.objectives:
        for stage in range(family.count_stages(objective)):
            found[objective] = train_stage(family.plan_expert(objective, stage), f"{objective}, stage {stage + 1}")
    return found


def find_experts(family: FamilyRun) -> dict[str, Path]:
    """Find the last artifact of each expert.

    Raises:
        RecipeError: one is not trained.
    """
    found = {name: Path(family.plan_expert(name, family.count_stages(name) - 1).output) for name in family.objectives}
    for name, folder in found.items():
        if not (folder / "artifact" / MANIFEST).is_file():
            raise RecipeError(f"{name} is not trained: {folder} holds no artifact; leave out --measure-only")
    return {name: folder / "artifact" for name, folder in found.items()}


def train_stage(run: ExpertRun, called: str) -> Path:
    """Train one stage, unless it is finished. Returns its artifact's folder."""
    folder, artifact = Path(run.output), Path(run.output) / "artifact"
    recipe = folder / "recipe.yaml"
    begun = recipe.is_file()
    if begun and read_recipe(str(recipe)) != run:
        raise RecipeError(f"{folder} holds a run of another recipe: delete it, or name another folder in output")
    if (artifact / MANIFEST).is_file():
        log.info("%s: finished already", called)
        open_artifact(artifact)
        return artifact
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "plan.yaml"
    plan.write_text(format_recipe(run), encoding="utf-8")
    log.info("%s: training", called)
    flags = [] if not begun else ["--resume"] if can_resume(run) else ["--overwrite"]
    if subprocess.run([sys.executable, "-m", "tureen_train", "run", str(plan), *flags]).returncode:
        raise RecipeError(f"{called} failed: see above; run the family again to go on from there")
    return artifact
