"""The table of the kinds of run: how each is trained, how it is read back, and what its manifest says.

A new kind is a row here, its recipe in :data:`tureen_train.config.Recipe`, and the file that trains it. Imports are
lazy: the libraries of training take seconds to import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen_core.artifact import Artifact
from tureen_train.config import Recipe
from tureen_train.runs.artifact_kind import ArtifactKind


@dataclass(frozen=True)
class RunKind:
    """One kind of run.

    Attributes:
        train: takes the recipe, and whether to resume. Returns the artifact; None on the launcher's other ranks.
        artifact: how the saved model is read back, and what its manifest says.
        cost: takes the recipe. Returns rows of what it will write and ask; none if it writes nothing.
    """

    train: Callable[[Any, bool], Artifact | None]
    artifact: Callable[[], ArtifactKind]
    cost: Callable[[Any], list[tuple[str, str]]]


def _train_reward(run: Any, resume: bool) -> Artifact | None:
    from tureen_train.rewards.run import train_reward

    return train_reward(run, resume)


def _reward_artifact() -> ArtifactKind:
    from tureen_train.runs.reward_artifact import RewardArtifact

    return RewardArtifact()


def _train_expert(run: Any, resume: bool) -> Artifact | None:
    from tureen_train.policies.run import train_policy

    return train_policy(run, resume)


def _expert_artifact() -> ArtifactKind:
    from tureen_train.runs.expert_artifact import ExpertArtifact

    return ExpertArtifact()


def _cost_nothing(run: Any) -> list[tuple[str, str]]:  # noqa: ARG001  (the table's signature)
    return []


def _cost_expert(run: Any) -> list[tuple[str, str]]:
    if not run.policy.samples:
        return []
    from tureen_train.policies.costs import estimate_cost

    return estimate_cost(run).list_rows()


KINDS: Mapping[str, RunKind] = {
    "reward": RunKind(_train_reward, _reward_artifact, _cost_nothing),
    "expert": RunKind(_train_expert, _expert_artifact, _cost_expert),
}


def find_artifact_kind(run: Recipe) -> ArtifactKind:
    """Return how a run's saved model is read back and exported."""
    return KINDS[run.kind].artifact()


def train_run(run: Recipe, resume: bool = False) -> Artifact | None:
    """Train what a recipe describes and export it. Returns None on the launcher's other ranks."""
    return KINDS[run.kind].train(run, resume)


def estimate_run(run: Recipe) -> list[tuple[str, str]]:
    """Estimate what a recipe will write and ask, without its weights; no rows if it writes nothing."""
    return KINDS[run.kind].cost(run)


def export_run(folder: Path) -> Artifact:
    """Write a finished run's artifact again.

    Raises:
        RecipeError: the run has not finished.
    """
    from tureen_train.runs.export import export_artifact
    from tureen_train.runs.folder import read_finished_run

    run, _ = read_finished_run(folder)
    return export_artifact(folder, find_artifact_kind(run))
