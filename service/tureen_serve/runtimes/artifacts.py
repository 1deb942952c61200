"""Open reward artifacts, and check them against their bases, before any model is loaded."""

from collections.abc import Sequence

from tureen_core.plain.locate import locate_source
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import OpenedReward, Reward
from tureen_serve.runtimes.root_folder import compute_state
from tureen_serve.runtimes.sources import LoadError, open_source
from tureen_serve.settings import RewardEntry


def open_reward(entry: RewardEntry, bases: Bases, dtype: str) -> OpenedReward:
    """Open a reward artifact.

    Raises:
        LoadError: it is not a reward model, its base has other weights or another template, or it cannot be renamed.
        ArtifactError: a file of the artifact is wrong.
    """
    state = compute_state(locate_source(entry.path, bases.cache, tried=entry.tried))  # before its files are read
    artifact = open_source(entry, bases.cache, bases.places)
    manifest = artifact.manifest
    folder = bases.locate_for(artifact)
    renderer = bases.make_verified_renderer(folder, artifact)
    if entry.name is not None and len(manifest.objectives) > 1:
        raise LoadError(
            f"{artifact.name} has {len(manifest.objectives)} objectives: remove `name`, it renames only one"
        )
    rewards = tuple(
        Reward(
            name=entry.name or objective.name,
            artifact=artifact,
            column=objective.column,
            calibration=objective.calibration,
            fingerprint=artifact.fingerprint(dtype),
            renderer=renderer,
        )
        for objective in manifest.objectives
    )
    return OpenedReward(entry, artifact, folder, rewards, bases, state)


def check_reward_names(models: Sequence[OpenedReward]) -> None:
    """Refuse two reward artifacts, or two rewards, of one name.

    Raises:
        LoadError: there are such.
    """
    for names, what in (
        ([each.artifact.name for each in models], "reward artifacts are"),
        ([reward.name for each in models for reward in each.rewards], "rewards are"),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise LoadError(f"two {what} called {twice!r}: rename one with `name`, or leave it out")
