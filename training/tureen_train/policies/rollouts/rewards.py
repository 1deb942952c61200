"""Opens the sources of rewards that a recipe names."""

import json
from collections.abc import Sequence
from pathlib import Path

from tureen_core.artifact import open_artifact
from tureen_train.config import (
    SHARES,
    ArtifactSource,
    FunctionSource,
    JudgeSource,
    PromptPreferences,
    RecipeError,
    RewardSource,
    ServerSource,
    check_common_units,
)
from tureen_train.policies.preference_sentences import SentenceFinder
from tureen_train.policies.rollouts.artifact_rewards import compares_answers, complete_source, open_valuers
from tureen_train.policies.rollouts.function_rewards import open_functions
from tureen_train.policies.rollouts.judge_rewards import open_judges
from tureen_train.policies.rollouts.preference_rewards import EachPreferenceValuer
from tureen_train.policies.rollouts.reward_sum import LastBatch, RewardCounts, WeightedRewarder
from tureen_train.policies.rollouts.server_rewards import open_servers
from tureen_train.policies.rollouts.valuing import Valuer
from tureen_train.runs.folder import ACCOUNT


def open_rewarder(
    sources: Sequence[RewardSource],
    folder: Path,
    batch: int = 8,
    failed_share: float = 1.0,
    resume: bool = False,
    preferences: PromptPreferences | None = None,
    summed: bool = True,
) -> WeightedRewarder:
    """Open all sources of rewards of a recipe.

        rewarder = open_rewarder(sources, Path("runs/helpful"))
        rewarder.reward(prompts, samples, ignore_progress)[0][0].total

    Args:
        folder: the run's folder.
        batch: in process, the texts in one batch; over HTTP, the prompts in one request.
        failed_share: a batch of which this share or more has no reward ends the run; 1 ends it when all fail.
        resume: go on from the counts of an earlier, broken run.
        summed: whether the rewards are summed, for which they need one unit.
        preferences: the sentences that sources with ``preferences: each`` look for; needed for them only.

    Raises:
        RecipeError: a source does not hold what the recipe asks for, two have the same name, one has the name of a
            deviation, or the sum would be of rewards without a common scale.
        ArtifactError: an artifact cannot be read.
        BaseError: a base is missing, or has other weights.
        TureenError: a server cannot be reached.
    """
    artifacts = {each.path: open_artifact(Path(each.path)) for each in sources if isinstance(each, ArtifactSource)}
    whole = [
        complete_source(each, artifacts[each.path].manifest) if isinstance(each, ArtifactSource) else each
        for each in sources
    ]
    names = [each.name for each in whole]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"rewards: two are called {twice[0]!r}; give one of them another name")
    if taken := next((name for name in names if f"_{name}".endswith("_std")), None):
        raise RecipeError(f"rewards: {taken!r} is the name of a deviation in the figures; give the reward another name")
    units = {each.name: each.unit for each in whole}
    pairwise = [
        each.name for each in whole if isinstance(each, ArtifactSource) and compares_answers(artifacts[each.path])
    ]
    units |= dict.fromkeys(pairwise, SHARES)
    if summed:
        check_common_units({each.name: units[each.name] for each in whole if each.weight})
    valuers: list[Valuer] = [
        *open_valuers([each for each in whole if isinstance(each, ArtifactSource)], artifacts, batch),
        *open_servers([each for each in whole if isinstance(each, ServerSource)], batch),
        *open_judges([each for each in whole if isinstance(each, JudgeSource)], folder),
        *open_functions([each for each in whole if isinstance(each, FunctionSource)]),
    ]
    if apart := {each.name for each in whole if each.preferences == "each"}:
        if preferences is None:
            raise RecipeError(f"rewards: preferences: each: say which sentences {', '.join(sorted(apart))} looks for")
        finder = SentenceFinder(preferences.by_pole)
        valuers = [EachPreferenceValuer(each, finder) if each.names[0] in apart else each for each in valuers]
    weights = {each.name: each.weight for each in whole}
    counted = _read_counts(folder) if resume else (RewardCounts(), None)
    return WeightedRewarder(valuers, weights, units, folder, failed_share, *counted)


def _read_counts(folder: Path) -> tuple[RewardCounts, LastBatch | None]:
    path = folder / ACCOUNT
    found = json.loads(path.read_text()) if path.is_file() else {}
    last = found.get("last_rewarded")
    return (
        RewardCounts(**found.get("rewards", {})),
        None if last is None else LastBatch(last["digest"], RewardCounts(**last["before"])),
    )
