"""Rewards as TRL's trainers of groups ask for them: one function for each reward, all from one pass over the answers.

TRL adds up what the functions return, and a missing number counts as 0. So an answer without a reward gets the mean of
the others to its prompt here: its advantage is then 0, and nothing is learnt from it. Failures are counted where they
happen.

TRL logs the numbers that it was given, and RLOO subtracts the KL divergence from their sum. So the figures of the
answers themselves are logged too, as those of all methods are, under names that begin with ``answers/``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt, Reward, Rewarder, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.round_figures import measure_answers
from tureen_train.policies.rollouts.rounds import Answered, Written
from tureen_train.runs.line_file import LineFile

Group = list[Sample]  # the answers to one prompt
RewardFunction = Callable[..., list[float]]
TOTAL = "total"
FIGURES = "answers/"


class GroupRewards:
    """Rewards each batch once for all functions. Every rank must call all of them, in the order of their list.

    The first rank rewards the answers of all ranks, so that one account counts them all, and a failure ends all ranks.

    Args:
        rewarder: rewards the answers; only the first rank's is used.
        names: of the rewards.
        prompts: all prompts of the run by their ids.
        ends: the ids of end tokens.
        samples: the file to which each answer is appended with its rewards; None keeps none.
    """

    def __init__(
        self,
        rewarder: Rewarder | None,
        names: Sequence[str],
        prompts: Mapping[str, Prompt],
        ends: Sequence[int],
        samples: LineFile | None,
    ) -> None:
        self._rewarder, self._names = rewarder, names
        self._prompts = prompts
        self._ends = ends
        self._samples = samples
        self._crew = Crew()
        self._rows: list[dict[str, float]] = []

    def list_functions(self) -> list[RewardFunction]:
        """List the functions, one for each reward. If a prompt has weights of its own, the sum is the only one."""
        weighed = any(prompt.weights is not None for prompt in self._prompts.values())
        return [self._make(name, first=not at) for at, name in enumerate([TOTAL] if weighed else self._names)]

    def _make(self, name: str, first: bool) -> RewardFunction:
        def reward(
            completions: Sequence[Any], completion_ids: list[list[int]], id: Sequence[str], **more: Any
        ) -> list[float]:
            if first:
                self._rows = self._read(completions, completion_ids, id, more)
            return [row[name] for row in self._rows]

        reward.__name__ = name
        return reward

    def _read(
        self, completions: Sequence[Any], ids: list[list[int]], names: Sequence[str], more: Mapping[str, Any]
    ) -> list[dict[str, float]]:
        """Reward a batch."""
        groups = group_places(names)
        samples = [
            [self._sample(name, number, completions[place], ids[place]) for number, place in enumerate(places)]
            for name, places in groups.items()
        ]
        asked = self._crew.gather(lambda: samples)
        step = more["trainer_state"].global_step
        rewards = self._crew.lead(lambda: self._reward(asked, step))[self._crew.rank]
        rows: list[dict[str, float]] = [{} for _ in ids]
        for places, group in zip(groups.values(), rewards, strict=True):
            for place, row in zip(places, fill_group(group, self._names), strict=True):
                rows[place] = row
        prompts = [self._prompts[name] for name in groups]
        answered = Answered(prompts, [[Written(each) for each in group] for group in samples], rewards)
        for figure, value in measure_answers(answered).items():
            more["log_metric"](f"{FIGURES}{figure}", value)
        return rows

    def _reward(self, asked: Sequence[Sequence[Group]], step: int) -> list[list[list[Reward]]]:
        """Reward the groups of all ranks, and note them."""
        assert self._rewarder is not None  # only the first rank rewards
        groups = [group for own in asked for group in own]
        prompts = [self._prompts[group[0].prompt] for group in groups]
        rewards = self._rewarder.reward(prompts, groups, ignore_progress)
        self._note(groups, rewards, step)
        left = iter(rewards)
        return [[next(left) for _ in own] for own in asked]

    def _sample(self, prompt: str, number: int, completion: Any, ids: Sequence[int]) -> Sample:
        text = completion[0]["content"] if isinstance(completion, list) else completion
        return Sample(prompt, number, str(text), tuple(ids), bool(ids) and ids[-1] in self._ends)

    def _note(self, samples: Sequence[Sequence[Sample]], rewards: Sequence[Sequence[Reward]], step: int) -> None:
        if self._samples is None:
            return
        self._samples.extend(
            {
                "step": step,
                "prompt": sample.prompt,
                "number": sample.number,
                "text": sample.text,
                "tokens": len(sample.ids),
                "finished": sample.finished,
                "rewards": dict(reward.values),
                "total": reward.total,
                "error": reward.error,
            }
            for group, own in zip(samples, rewards, strict=True)
            for sample, reward in zip(group, own, strict=True)
        )


def group_places(names: Sequence[str]) -> dict[str, list[int]]:
    """Group the places of a batch by the ids of their prompts."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    return groups


def fill_group(rewards: Sequence[Reward], names: Sequence[str]) -> list[dict[str, float]]:
    """Return each answer's rewards and their total; one that failed gets the means of its group, 0 if all failed."""
    whole = [{**each.values, TOTAL: each.total} for each in rewards if each.total is not None]
    keys = [*names, TOTAL]
    means = {key: math.fsum(row[key] for row in whole) / len(whole) if whole else 0.0 for key in keys}
    return [means if each.total is None else {**each.values, TOTAL: each.total} for each in rewards]


def open_samples(path: Path, step: int) -> LineFile:
    """Open the file of samples, without those that a broken run noted after the checkpoint of ``step``."""
    file = LineFile(path)
    kept = [row for row in file.rows if row["step"] < step]
    if len(kept) < len(file.rows):
        path.write_bytes(b"")
        file.extend(kept)
    return file
