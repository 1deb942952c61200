"""Rounds of generate → score → select → train, on disk round by round.

A round is a folder below ``rounds``: ``prompts.jsonl``, ``samples.jsonl``, ``rewards.jsonl``, ``kept.jsonl`` (what was
kept and why), ``round.json`` (its settings, counts and figures), ``training`` (the run that learnt from what was kept)
and ``model`` (the weights after it). One adapter, or one set of whole weights, is trained on over the rounds; the
optimiser and its schedule begin anew in each.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from tureen.json_lines import decode_json
from tureen.records.schema import Record
from tureen_core.manifest import Probe
from tureen_train.config import RecipeError
from tureen_train.networks.memory import free_memory
from tureen_train.policies.held_answers import AFTER, BEFORE, HeldAnswers
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.round_figures import measure_answers
from tureen_train.policies.rollouts.rounds import KEPT, Answered, read_about, write_about, write_rows
from tureen_train.policies.round_tools import RoundTools
from tureen_train.policies.round_writers import Weights, name_start
from tureen_train.policies.trained_rounds import TrainedRounds
from tureen_train.records.run_data import RunData
from tureen_train.runs.history import Journal
from tureen_train.runs.launch import has_checkpoint
from tureen_train.runs.movement import check_movement

SHOWN = ("reward", "reward_std", "length", "kl_per_token", "kept_share", "distinct_2")

log = logging.getLogger("tureen.train")

# trains on the records of a task, whose folder and start are the round's own; also given the weights before the first
# round, or None in a round that starts from them
Teach = Callable[[Task, Weights | None], TrainedPolicy]


@dataclass(frozen=True)
class Lesson:
    """What a round learns from.

    Attributes:
        records: what is trained on.
        rows: the same as lines of ``kept.jsonl``.
        kept: the number of the round's answers, or pairs of them, that are kept.
        left_out: the number of answers that could not be chosen, by reason.
        figures: those of the choice.
    """

    records: Sequence[Record]
    rows: Sequence[Mapping[str, Any]]
    kept: int
    left_out: Mapping[str, int]
    figures: Mapping[str, float]


class Course(Protocol):
    """What a method does in its rounds. Every rank makes the same calls, and ``reward`` only process 0.

    Attributes:
        numbers: of the rounds, in their order.
        held: the answers to held-out prompts.
    """

    @property
    def numbers(self) -> Sequence[int]:
        """As above."""

    @property
    def held(self) -> HeldAnswers:
        """As above."""

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        """Reward answers to held-out prompts."""

    def collect_round(self, number: int, folder: Path, weights: Weights) -> Answered:
        """Write and reward the answers of a round into its folder, or do what is left of it."""

    def choose_lesson(self, number: int, answered: Answered) -> Lesson:
        """Choose what is learnt from."""

    def teach_round(self, number: int, task: Task, origin: Weights | None) -> TrainedPolicy:
        """Train on the records of a task, whose folder and start are the round's own.

        Args:
            origin: the weights before the first round; None in a round that starts from them.
        """


class RoundLoop:
    """The rounds of a run, or what an earlier, broken one left of them. Every rank must make the same calls.

    Args:
        probes: chooses the probes of the method's own, after all rounds; by default there are none.
    """

    def __init__(self, tools: RoundTools, course: Course, probes: Callable[[], Sequence[Probe]] = tuple) -> None:
        self.tools, self.task, self.crew, self.folder = tools, tools.task, tools.crew, tools.folder
        self.course, self.probes = course, probes
        self.journal = Journal(self.task.folder / "history.jsonl" if self.crew.writes else None)
        self.step = 0
        self.moved = False

    def run(self) -> TrainedRounds:
        """Run all rounds.

        Raises:
            RecipeError: nothing of a round is kept, or the folder holds rounds of another recipe.
            RewardError: too many answers have no reward.
            StandstillError: training changed nothing in a round.
        """
        weights, held = self.tools.origin, self.course.held
        held.write_by_weights(BEFORE, weights, self.tools.origin)
        trained: TrainedPolicy | None = None
        for number in self.course.numbers:
            trained = None
            free_memory()
            folder = self.folder / f"{number:03d}"
            if not self.crew.share(read_about(folder).get("trained", False)):
                trained = self._run_round(folder, number, weights)
            weights = self._end_round(folder, number)
        free_memory()
        held.write_by_weights(AFTER, weights, self.tools.origin)
        metrics = held.compare(self.course.reward, self.tools.compares)
        saved = weights.adapter or weights.base
        own = (trained.model, trained.policy, trained.accelerator) if trained is not None else self._reopen(weights)
        return TrainedRounds(*own, self.journal.entries, metrics, self.moved, saved, self.probes())

    def _run_round(self, folder: Path, number: int, weights: Weights) -> TrainedPolicy:
        """Write, reward, select and learn, or do what is left of it."""
        answered = self.course.collect_round(number, folder, weights)
        lesson = self.course.choose_lesson(number, answered)
        self.crew.lead(lambda: self._describe(folder, answered, lesson))
        if not lesson.kept:
            why = ", ".join(f"{count} {reason}" for reason, count in lesson.left_out.items()) or "nothing reaches it"
            raise RecipeError(f"{folder.name}: policy keeps no answer of round {number}: {why}")
        own = name_start(self.task.run, weights).model_copy(update={"output": str(folder / "training")})
        data = RunData(list(lesson.records), {}, {})
        task = replace(self.task, run=own, base=weights.base, data=data, resume=has_checkpoint(own))
        trained = self.course.teach_round(number, task, None if weights == self.tools.origin else self.tools.origin)
        check_movement(trained.history, trained.moved)
        trained.save(folder / "model")
        if self.crew.writes:
            steps = max(entry["step"] for entry in trained.history)
            write_about(folder, trained=True, steps=steps, moved=trained.moved)
        return trained

    def _describe(self, folder: Path, answered: Answered, lesson: Lesson) -> None:
        """Write what is kept, and the counts and figures of the round."""
        write_rows(folder / KEPT, lesson.rows)
        write_about(
            folder,
            prompts=len(answered.prompts),
            answers=sum(map(len, answered.written)),
            kept=lesson.kept,
            left_out=dict(lesson.left_out),
            figures={**measure_answers(answered), **lesson.figures},
        )

    def _end_round(self, folder: Path, number: int) -> Weights:
        """Log a round that is trained. Returns the weights after it."""
        about, entries = self.crew.share(
            (read_about(folder), _read_lines(folder / "training" / "history.jsonl")) if self.crew.writes else ({}, [])
        )
        figures = about["figures"]
        self.journal.log({"round": number, **figures, "step": self.step})
        for entry in entries:
            self.journal.log({**entry, "round": number, "step": self.step + entry["step"]})
        self.step += about["steps"]
        self.moved |= about["moved"]
        if self.crew.writes:
            told = ", ".join(f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures)
            log.info("round %d: %d of %d answers kept; %s", number, about["kept"], about["answers"], told)
        if self.task.run.model.lora is None:
            return Weights(folder / "model")
        return Weights(self.task.base, folder / "model")

    def _reopen(self, weights: Weights) -> tuple[Any, Any, Any]:
        """Open the policy after all rounds, where this process did not train it."""
        run = name_start(self.task.run, weights)
        policy = open_policy(run, weights.base, open_start(run, weights.base))
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        policy.to(accelerator.device)
        return policy, policy, accelerator


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [decode_json(line) for line in path.read_text().splitlines()]
