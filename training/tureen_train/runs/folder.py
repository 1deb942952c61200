"""The files of a run's folder: their names, writing them, and reading a finished run."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tureen.atomic_files import replace_atomically
from tureen_core.artifact import Objective, Probe
from tureen_core.base import CACHE, locate_base
from tureen_core.steering import InPromptSteering
from tureen_train.config import Recipe, RecipeError, Run, format_recipe, read_recipe
from tureen_train.measures.non_finite import replace_non_finite
from tureen_train.settings import read_rank

ACCOUNT = "account.json"
ROLLOUTS = "rollouts"  # the folder of the answers that a policy writes in its training
HELD_ANSWERS = "held_answers.jsonl"  # the answers to held-out prompts, before and after training
STEERING = "steering.json"  # of a policy that is steered by its prompt
ROUNDS = "rounds"  # the folder of the rounds of a method that trains in rounds
RESULTS = ("artifact", "checkpoints", ROLLOUTS, ROUNDS)  # folders that a new run does not silently replace
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed")
_OBJECTIVES = TypeAdapter(list[Objective])
_PROBES = TypeAdapter(list[Probe])
_STEERING: TypeAdapter[InPromptSteering] = TypeAdapter(InPromptSteering)


def find_cache(run: Run) -> Path:
    """Return the folder of the cache, which runs share: converted bases, hidden states of frozen models."""
    return Path(run.cache) if run.cache else CACHE


def find_base(run: Run) -> Path:
    """Return the folder of a run's base. The base is fetched and converted first if needed."""
    return locate_base(run.model.base, find_cache(run))


def read_finished_run(folder: Path) -> tuple[Recipe, Path]:
    """Read a finished run's recipe and find its base.

    Raises:
        RecipeError: a file that the run should have written is not there.
    """
    missing = [name for name in ("recipe.yaml", "model", "metrics.json", "probes.json") if not (folder / name).exists()]
    if missing:
        raise RecipeError(f"{folder} holds no finished run: {missing[0]} is missing; run the recipe to its end")
    run = read_recipe(str(folder / "recipe.yaml"))
    return run, find_base(run)


def write_results(folder: Path, run: Recipe, provenance: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, ``data.json``, ``versions.json`` and the resolved ``recipe.yaml``."""
    (folder / "metrics.json").write_text(json.dumps(replace_non_finite(metrics), indent=1) + "\n")
    (folder / "data.json").write_text(json.dumps(provenance, indent=1) + "\n")
    (folder / "versions.json").write_text(json.dumps(list_library_versions(), indent=1) + "\n")
    (folder / "recipe.yaml").write_text(format_recipe(run))


def claim_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Make sure that a new run may write into its folder.

    With ``overwrite`` the artifact, the checkpoints and the answers of the run before are removed. Only rank 0 removes.

    Raises:
        RecipeError: the folder holds one of these, and neither option is given.
    """
    kept = [path for path in (folder / name for name in RESULTS) if path.is_dir() and any(path.iterdir())]
    if not kept or resume:
        return
    if not overwrite:
        raise RecipeError(
            f"{folder} holds the {kept[0].name} of another run: go on with --resume, replace it with --overwrite, or "
            "name another folder in output"
        )
    for path in kept if read_rank() == 0 else []:
        shutil.rmtree(path)


def update_account(folder: Path, **parts: Any) -> None:
    """Write parts of ``account.json``, in place of earlier ones: what became of the texts, and what set the scale."""
    if read_rank() != 0:
        return
    path = folder / ACCOUNT
    folder.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.is_file() else {}
    with replace_atomically(path) as part:
        part.write_text(json.dumps({**found, **parts}, indent=1) + "\n")


def list_library_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the result of a run."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def write_probes(folder: Path, probes: Sequence[Probe]) -> None:
    """Write ``probes.json``: the probes, without scores. They are scored after saving, after export and in serving."""
    (folder / "probes.json").write_bytes(_PROBES.dump_json(list(probes), exclude_defaults=True) + b"\n")


def read_probes(folder: Path) -> list[Probe]:
    """Read a run's probes."""
    return _PROBES.validate_json((folder / "probes.json").read_bytes())


def write_objectives(folder: Path, objectives: Sequence[Objective]) -> None:
    """Write ``objectives.json``: names, columns and calibrations."""
    (folder / "objectives.json").write_bytes(_OBJECTIVES.dump_json(list(objectives), indent=1) + b"\n")


def write_steering(folder: Path, steering: InPromptSteering) -> None:
    """Write ``steering.json``: how a policy is steered by its prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STEERING).write_text(steering.model_dump_json(indent=1) + "\n")


def read_steering(folder: Path) -> InPromptSteering:
    """Read how a run's policy is steered by its prompt."""
    return _STEERING.validate_json((folder / STEERING).read_bytes())


def read_objectives(folder: Path) -> list[Objective]:
    """Read a reward run's objectives."""
    return _OBJECTIVES.validate_json((folder / "objectives.json").read_bytes())
