"""Reward preparation: the data's answers are rewarded once, on disk, and their scale is measured.

The folder has the files of a round: ``prompts.jsonl``, ``samples.jsonl`` (the data's answers), ``rewards.jsonl`` (their
raw rewards) and ``round.json``. A run that is broken goes on with what is not rewarded yet.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tureen.json_lines import encode_line
from tureen_core.artifact import MANIFEST, open_artifact
from tureen_core.steering import TagSteering
from tureen_train.config import ArtifactSource, FunctionSource, RecipeError, RewardSource, RicPolicy, ServerSource
from tureen_train.policies.method import Task
from tureen_train.policies.ric.data_answers import DataAnswers, collect_data_answers
from tureen_train.policies.ric.scale import measure_scale, normalise_data
from tureen_train.policies.rollouts.rounds import Answered, collect_answers
from tureen_train.policies.round_tools import RoundTools
from tureen_train.records.encoding_report import check_training_data
from tureen_train.runs.folder import update_account

AT_ONCE = 256  # prompts


def prepare_data(tools: RoundTools, policy: RicPolicy) -> tuple[Answered, TagSteering]:
    """Reward the data's answers, or those that are not rewarded yet. Every rank must call it.

    Returns:
        The answers with normalised rewards, and the steering with their scale.

    Raises:
        RecipeError: too few answers fit, a reward compares answers or is the same for all, the folder has the rewards
            of other data or sources, or ``model.start`` was trained with other rewards.
        RewardError: too many answers have no reward.
    """
    task = tools.task
    if tools.compares:
        raise RecipeError("rewards: RiC needs the reward of each answer, and a pairwise model compares answers")
    found = collect_data_answers(task.data.train, task.renderer, policy.shortest)
    check_training_data(found.report, task.run.data.most_dropped)
    update_account(task.folder, texts={"answers": found.report.counts})
    folder = Path(policy.prepared) if policy.prepared else tools.folder / "prepared"
    settings = {"rewards": tools.settings["rewards"], "answers": _digest_texts(found)}
    raw = collect_answers(folder, found.prompts, settings, found.make_writer(), tools.reward, AT_ONCE, tools.crew)
    names = list(tools.weights)
    steering = _find_start_steering(task, names) or TagSteering(
        family=task.run.family,
        objectives=measure_scale(raw, names, policy, describe_sources(task.run.rewards, names)),
        mapping=policy.mapping,
        tag=policy.tag,
    )
    return Answered(raw.prompts, raw.written, normalise_data(raw.rewards, steering, policy)), steering


def describe_sources(sources: Sequence[RewardSource], names: Sequence[str]) -> Mapping[str, str]:
    """Say what read each reward: an artifact's name and version, a server's reward, or a function."""
    return {name: _describe_source(source) for name, source in zip(names, sources, strict=True)}


def _describe_source(source: RewardSource) -> str:
    if isinstance(source, ArtifactSource):
        manifest = open_artifact(Path(source.path)).manifest
        return f"{manifest.name} {manifest.version}".rstrip()
    if isinstance(source, ServerSource):
        return f"{source.reward}, served"
    return source.function if isinstance(source, FunctionSource) else source.name


def _find_start_steering(task: Task, names: Sequence[str]) -> TagSteering | None:
    """Find the steering of a policy that the run starts from, whose tags keep their meaning; None without one."""
    start = task.run.model.start
    folder = Path(start).expanduser() if start else None
    if folder is None or not (folder / MANIFEST).is_file():
        return None
    steering = open_artifact(folder).manifest.steering
    if not isinstance(steering, TagSteering):
        return None
    if steering.names != list(names):
        known = ", ".join(steering.names)
        raise RecipeError(f"model.start: its tags state {known}, and rewards has {', '.join(names)}; make them agree")
    return steering


def _digest_texts(found: DataAnswers) -> str:
    digest = hashlib.sha256()
    for own in found.samples:
        digest.update(encode_line({"answers": [each.text for each in own]}))
    return digest.hexdigest()
