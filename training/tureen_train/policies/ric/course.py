"""The rounds of Rewards-in-Context. Round 0 is the offline stage, on all answers of the data; online rounds follow.

A run may leave out the offline stage, where it starts from a policy that has learnt from the data.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tureen.records.schema import Record
from tureen_core.manifest import Probe
from tureen_train.config import OnlineStage, RicPolicy, SftPolicy
from tureen_train.policies.chosen_probes import choose_probes
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.ric.choices import FoundRows, draw_rows, find_rows, keep_rows
from tureen_train.policies.ric.cleaning import clean_answer
from tureen_train.policies.ric.desired import ask_uniformly, draw_requests, tag_prompt
from tureen_train.policies.ric.preparation import prepare_data
from tureen_train.policies.ric.scale import normalise_own
from tureen_train.policies.ric.tagged_rows import TaggedRow, describe_row, make_tagged_record
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.draws import make_round_seed
from tureen_train.policies.rollouts.round_figures import measure_kept
from tureen_train.policies.rollouts.rounds import Answered, Write, Written, claim_round
from tureen_train.policies.round_tools import RoundTools, collect_round_prompts
from tureen_train.policies.round_writers import Weights
from tureen_train.policies.sft import train_sft
from tureen_train.policies.training_rounds import Lesson
from tureen_train.records.run_data import RunData
from tureen_train.runs.folder import write_steering

OFFLINE = 0  # the number of the round that learns from the data


class RicCourse:
    """The :class:`tureen_train.policies.training_rounds.Course` of Rewards-in-Context (arXiv 2402.10207)."""

    def __init__(self, tools: RoundTools) -> None:
        task = tools.task
        assert isinstance(task.run.policy, RicPolicy)
        self._tools, self._policy = tools, task.run.policy
        self._seed = task.run.optimisation.seed
        self._prepared, self.steering = prepare_data(tools, self._policy)
        self._data = find_rows(self._prepared, "data")
        online = self._policy.online
        first = OFFLINE if self._policy.offline else OFFLINE + 1
        self.numbers: Sequence[int] = range(first, 1 + (online.rounds if online else 0))
        self._prompts = collect_round_prompts(task) if online else None
        self._own: dict[int, FoundRows] = {}  # by round, what was found among the policy's own answers
        self.held = tools.open_held(partial(ask_uniformly, seed=self._seed, steering=self.steering), self._adapt)
        tools.crew.lead(lambda: write_steering(task.folder, self.steering))

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        """See :class:`tureen_train.policies.training_rounds.Course`. The rewards are normalised as the data's are."""
        return normalise_own(self._tools.reward(prompts, samples), self.steering, self._policy)

    def _adapt(self, write: Write) -> Write:
        """Let a writer read the tags of its prompts, and clean what it writes."""

        def write_tagged(prompts: Sequence[Prompt]) -> list[list[Written]]:
            written = write([tag_prompt(each, self.steering) for each in prompts])
            return [[clean_answer(each, self._policy.clean) for each in own] for own in written]

        return write_tagged

    def collect_round(self, number: int, folder: Path, weights: Weights) -> Answered:
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        tools = self._tools
        if number == OFFLINE:
            tools.crew.lead(lambda: claim_round(folder, (), tools.settings))
            return self._prepared
        seed = make_round_seed(self._seed, number)
        return tools.answer_prompts(folder, self._draw(number), weights, seed, self.reward, self._adapt)

    def choose_lesson(self, number: int, answered: Answered) -> Lesson:
        """See :class:`tureen_train.policies.training_rounds.Course`."""
        if number == OFFLINE:
            return self._make_lesson(self._data.rows, self._data, len(self._data.rows), answered)
        self._own[number] = found = self._find_own(number, answered)
        own = keep_rows(found.rows, self._online)
        earlier = [row for before in range(1, number) for row in self._keep_earlier(before)]
        original = keep_rows(self._data.rows, self._online)
        drawn = draw_rows(original, self._online.original, f"{self._seed} original {number}")
        return self._make_lesson([*earlier, *own, *drawn], found, len(own), answered)

    def teach_round(self, number: int, task: Task, origin: Weights | None) -> TrainedPolicy:  # noqa: ARG002
        """See :class:`tureen_train.policies.training_rounds.Course`. Only answers are learnt, not their prompts."""
        changes: dict[str, Any] = {
            "policy": SftPolicy(method="sft", answers="all", too_long="drop", max_length=self._policy.max_length)
        }
        if number != OFFLINE:
            own = {
                "learning_rate": self._online.learning_rate,
                "max_steps": self._online.steps or -1,
                "schedule": "constant",
                "warmup": 0.0,
            }
            changes["optimisation"] = task.run.optimisation.model_copy(update=own)
        return train_sft(replace(task, run=task.run.model_copy(update=changes)))

    @property
    def _online(self) -> OnlineStage:
        assert self._policy.online is not None
        return self._policy.online

    def _draw(self, number: int) -> list[Prompt]:
        """Draw the prompts of an online round, with the rewards that are asked for."""
        assert self._prompts is not None
        return draw_requests(
            self._prompts, self._online.prompts, f"{self._seed} round {number}", self.steering, self._online.desired
        )

    def _find_own(self, number: int, answered: Answered) -> FoundRows:
        return find_rows(answered, f"round {number}", self._policy.clean)

    def _keep_earlier(self, number: int) -> list[TaggedRow]:
        """What was kept of an earlier round, which a run that goes on reads again."""
        if number not in self._own:
            answered = self._tools.read_round(self._tools.folder / f"{number:03d}", self._draw(number))
            self._own[number] = self._find_own(number, answered)
        return keep_rows(self._own[number].rows, self._online)

    def _make_lesson(self, rows: Sequence[TaggedRow], found: FoundRows, kept: int, answered: Answered) -> Lesson:
        lines = [describe_row(each, self.steering) for each in rows]
        return Lesson(self._make_records(rows), lines, kept, found.left_out, measure_kept(answered, kept, pairs=False))

    def _make_records(self, rows: Sequence[TaggedRow]) -> list[Record]:
        specials = frozenset(self._tools.task.renderer.tokenizer.all_special_ids)
        return [make_tagged_record(each, self.steering, specials) for each in rows]

    def choose_probes(self) -> list[Probe]:
        """Choose answers of the data, whose prompts state their rewards."""
        task = self._tools.task
        data = RunData(self._make_records(self._data.rows), {}, {})
        return choose_probes(data, task.renderer, task.run.probes)
