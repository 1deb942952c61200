"""Held-out prompts, answered before and after training with the same random numbers, and rewarded side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tureen_train.policies.method import Metrics, Task
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.prompts import collect_prompts, draw_prompts
from tureen_train.policies.rollouts.round_figures import measure_answers
from tureen_train.policies.rollouts.rounds import Answered, RewardAll, Written, reward_answers, write_answers
from tureen_train.policies.round_writers import Weights, count_prompts_at_once, open_writer

BEFORE, AFTER, COMPARED = "before", "after", "compared"


class HeldAnswers:
    """One answer to each held-out prompt before training, and one after.

    A reward that compares answers is here the share of wins of the one against the other.

    Args:
        folder: gets the folders ``before``, ``after`` and ``compared``, each with a folder for each held-out file.
        settings: what decides the answers, see :func:`tureen_train.policies.rollouts.rounds.write_answers`.
        seed: of both.
    """

    def __init__(
        self, task: Task, folder: Path, settings: Mapping[str, Any], origin: Weights, seed: int, crew: Crew
    ) -> None:
        self._task, self._folder, self._settings, self._origin = task, folder, settings, origin
        self._seed, self._crew = seed, crew
        engine = "process" if task.run.sampling.engine == "server" else task.run.sampling.engine
        own = {"count": 1, "engine": engine, "url": None, "model": None, "preferences": None}
        self._sampling = task.run.sampling.model_copy(update=own)
        longest = task.run.sampling.max_prompt
        found = {name: collect_prompts(records, task.renderer, longest) for name, records in task.data.eval.items()}
        self._prompts: dict[str, Sequence[Prompt]] = {
            name: draw_prompts(prompts, 1, None, seed) for name, prompts in found.items() if prompts.prompts
        }
        self._written: dict[str, dict[str, list[list[Written]]]] = {BEFORE: {}, AFTER: {}}

    def write(self, when: str, weights: Weights) -> None:
        """Write the answers ``before`` or ``after`` training, or what is missing of them."""
        if not self._prompts:
            return
        run, renderer = self._task.run, self._task.renderer
        writer = open_writer(run, weights, self._origin, renderer, self._sampling, self._seed)
        for name, prompts in self._prompts.items():
            self._written[when][name] = write_answers(
                self._folder / when / name,
                prompts,
                self._settings,
                writer.write,
                count_prompts_at_once(self._sampling),
                self._crew,
            )
        writer.close()

    def reward(self, reward: RewardAll) -> Metrics:
        """Reward the answers. Returns the figures of each held-out file, ``..._before`` and ``..._after``."""
        metrics = {}
        for name, prompts in self._prompts.items():
            before, after = (self._written[when][name] for when in (BEFORE, AFTER))
            both = [[*one, _renumber(other)] for one, (other,) in zip(before, after, strict=True)]
            answered = reward_answers(self._folder / COMPARED / name, prompts, both, reward, self._crew)
            metrics[name] = {
                f"{figure}_{when}": value
                for at, when in enumerate((BEFORE, AFTER))
                for figure, value in measure_answers(_pick(answered, at)).items()
            }
        return metrics


def _renumber(written: Written) -> Written:
    """The answer after training is the second one to its prompt."""
    return replace(written, sample=replace(written.sample, number=1))


def _pick(answered: Answered, at: int) -> Answered:
    """The first or the second answer to each prompt."""
    return Answered(answered.prompts, [[own[at]] for own in answered.written], [[own[at]] for own in answered.rewards])
