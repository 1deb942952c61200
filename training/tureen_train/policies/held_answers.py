"""Held-out prompts, answered before and after training with the same random numbers, and rewarded side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tureen_train.policies.method import Metrics, Task
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.draws import make_round_seed
from tureen_train.policies.rollouts.prompts import collect_prompts, draw_prompts
from tureen_train.policies.rollouts.round_figures import measure_answers
from tureen_train.policies.rollouts.rounds import (
    Answered,
    RewardAll,
    Write,
    Written,
    reward_answers,
    write_answers,
    write_rows,
)
from tureen_train.policies.round_writers import Weights, count_prompts_at_once, open_writer
from tureen_train.runs.folder import HELD_ANSWERS

BEFORE, AFTER, COMPARED = "before", "after", "compared"


class HeldAnswers:
    """One answer to each held-out prompt before training, one after, and at other times.

    A reward that compares answers is here the share of wins of the answer after training against the one before, so
    it is only told of these two.

    Args:
        folder: gets the folders ``before``, ``after`` and others, each with a folder for each held-out file.
        settings: what decides the answers, see :func:`tureen_train.policies.rollouts.rounds.write_answers`.
        engine: that writes them.
        ask: makes the prompts that are answered of the held-out ones.
        adapt: makes the writer of the answers from that of a policy.

    Attributes:
        sampling: the recipe's, for one answer to each prompt.
        seed: of all answers.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        settings: Mapping[str, Any],
        crew: Crew,
        engine: Literal["process", "vllm"] = "process",
        ask: Callable[[Sequence[Prompt]], Sequence[Prompt]] = list,
        adapt: Callable[[Write], Write] = lambda write: write,
    ) -> None:
        self._task, self._folder, self._settings, self._crew = task, folder, settings, crew
        self._adapt = adapt
        own = {"count": 1, "engine": engine, "url": None, "model": None, "preferences": None}
        self.sampling = task.run.sampling.model_copy(update=own)
        self.seed = make_round_seed(task.run.optimisation.seed, 0)
        longest = task.run.sampling.max_prompt
        found = {name: collect_prompts(records, task.renderer, longest) for name, records in task.data.eval.items()}
        self.prompts: Mapping[str, Sequence[Prompt]] = {
            name: ask(draw_prompts(prompts, 1, None, self.seed)) for name, prompts in found.items() if prompts.prompts
        }
        self._written: dict[str, dict[str, list[list[Written]]]] = {}

    def write(self, when: str, write: Write) -> None:
        """Write the answers, or what is missing of them.

        Args:
            when: the name of their folder; the answers :data:`BEFORE` and :data:`AFTER` are those that are compared.
            write: writes one answer to each of some prompts, by :attr:`sampling` and :attr:`seed`.
        """
        self._written[when] = {
            name: write_answers(
                self._folder / when / name,
                prompts,
                self._settings,
                self._adapt(write),
                count_prompts_at_once(self.sampling),
                self._crew,
            )
            for name, prompts in self.prompts.items()
        }

    def write_by_weights(self, when: str, weights: Weights, origin: Weights) -> None:
        """Open a policy and write its answers, or what is missing of them. No trainer may hold the memory.

        Args:
            origin: the weights before training.
        """
        if not self.prompts:
            return
        run, renderer = self._task.run, self._task.renderer
        writer = open_writer(run, weights, origin, renderer, self.sampling, self.seed)
        self.write(when, writer.write)
        writer.close()

    def reward(self, when: str, reward: RewardAll) -> Metrics:
        """Reward the answers that are written, each by itself. Returns the figures of each held-out file."""
        return {name: measure_answers(each) for name, each in self._reward(when, reward).items()}

    def _reward(self, when: str, reward: RewardAll) -> dict[str, Answered]:
        return {
            name: reward_answers(self._folder / when / name, prompts, self._written[when][name], reward, self._crew)
            for name, prompts in self.prompts.items()
        }

    def compare(self, reward: RewardAll, compares: bool) -> Metrics:
        """Reward the answers before and after training, and write them side by side into the run's folder.

        Args:
            compares: whether a reward compares the answers to a prompt.

        Returns:
            The figures of each held-out file, ``..._before`` and ``..._after``.
        """
        if compares:
            before, after = self._reward_together(reward)
        else:
            before, after = self._reward(BEFORE, reward), self._reward(AFTER, reward)
        if self._crew.writes:
            path = self._task.folder / HELD_ANSWERS
            path.unlink(missing_ok=True)  # of an earlier run
            rows = [row for name in self.prompts for row in _list_rows(name, before[name], after[name])]
            if rows:
                write_rows(path, rows)
        return {
            name: {
                f"{figure}_{when}": value
                for when, answered in ((BEFORE, before[name]), (AFTER, after[name]))
                for figure, value in measure_answers(answered).items()
            }
            for name in self.prompts
        }

    def _reward_together(self, reward: RewardAll) -> tuple[dict[str, Answered], dict[str, Answered]]:
        pairs = {}
        for name, prompts in self.prompts.items():
            before, after = (self._written[when][name] for when in (BEFORE, AFTER))
            both = [[*one, _renumber(other)] for one, (other,) in zip(before, after, strict=True)]
            pairs[name] = reward_answers(self._folder / COMPARED / name, prompts, both, reward, self._crew)
        first, second = ({name: _pick(answered, at) for name, answered in pairs.items()} for at in (0, 1))
        return first, second


def _renumber(written: Written) -> Written:
    """The answer after training is the second one to its prompt."""
    return replace(written, sample=replace(written.sample, number=1))


def _pick(answered: Answered, at: int) -> Answered:
    """The first or the second answer to each prompt."""
    return Answered(answered.prompts, [[own[at]] for own in answered.written], [[own[at]] for own in answered.rewards])


def _list_rows(file: str, before: Answered, after: Answered) -> list[dict[str, Any]]:
    return [
        {
            "file": file,
            "id": prompt.id,
            "prompt": [dict(turn) for turn in prompt.messages],
            BEFORE: _describe(before, at),
            AFTER: _describe(after, at),
        }
        for at, prompt in enumerate(before.prompts)
    ]


def _describe(answered: Answered, at: int) -> dict[str, Any]:
    (written,), (reward,) = answered.written[at], answered.rewards[at]
    sample = written.sample
    told = {"text": sample.text, "tokens": len(sample.ids), "finished": sample.finished}
    return {**told, "rewards": dict(reward.values), "total": reward.total, "error": reward.error}
