"""Rounds of generate → score → select → train, on disk round by round.

A round is a folder below ``rounds``: ``prompts.jsonl``, ``samples.jsonl``, ``rewards.jsonl``, ``kept.jsonl`` (what was
kept and why), ``round.json`` (its settings, counts and figures), ``training`` (the run that learnt from what was kept)
and ``model`` (the weights after it). One adapter, or one set of whole weights, is trained on over the rounds; the
optimiser and its schedule begin anew in each.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator

from tureen.json_lines import decode_json
from tureen_train.config import IterativeDpoPolicy, RecipeError, RejectionPolicy
from tureen_train.networks.memory import free_memory
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.held_answers import AFTER, BEFORE, HeldAnswers
from tureen_train.policies.kept_answers import describe_kept, make_records
from tureen_train.policies.method import Task, TrainedPolicy
from tureen_train.policies.opening import open_policy, open_start
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.draws import make_round_seed
from tureen_train.policies.rollouts.prompts import PromptSet, check_prompts, collect_prompts, draw_prompts
from tureen_train.policies.rollouts.reward_sum import WeightedRewarder
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.round_figures import measure_answers, measure_kept
from tureen_train.policies.rollouts.rounds import (
    KEPT,
    Answered,
    collect_answers,
    read_about,
    write_about,
    write_rows,
)
from tureen_train.policies.rollouts.selections import Chosen, select_answers
from tureen_train.policies.round_writers import Weights, count_prompts_at_once, find_origin, name_start, open_writer
from tureen_train.policies.trained_rounds import TrainedRounds
from tureen_train.records.run_data import RunData
from tureen_train.runs.folder import ROUNDS, update_account
from tureen_train.runs.history import Journal
from tureen_train.runs.launch import has_checkpoint
from tureen_train.runs.movement import check_movement

# the parts of a recipe that decide, beside the prompts, what a policy writes, how that is rewarded, and what is kept
DECIDING = ("model", "policy", "rewards", "sampling", "optimisation")
SHOWN = ("reward", "reward_std", "length", "kl_per_token", "kept_share", "distinct_2")

log = logging.getLogger("tureen.train")


class Teacher(Protocol):
    """How a round's kept answers are learnt from."""

    def __call__(self, task: Task, origin: Weights | None) -> TrainedPolicy:
        """Train on the records of a task, whose folder and start are the round's own.

        Args:
            origin: the weights before the first round; None in a round that starts from them.
        """


def train_in_rounds(task: Task, teach: Teacher) -> TrainedRounds:
    """Train a policy in rounds, or go on where an earlier, broken run stopped.

    Raises:
        RecipeError: there is no prompt to answer, a reward does not fit, nothing of a round is kept, or the folder
            holds rounds of another recipe.
        RewardError: too many answers have no reward.
        StandstillError: training changed nothing in a round.
    """
    return RoundLoop(task, teach).run()


class RoundLoop:
    """The rounds of a run. Every rank must make the same calls."""

    def __init__(self, task: Task, teach: Teacher) -> None:
        run = task.run
        assert isinstance(run.policy, RejectionPolicy | IterativeDpoPolicy)
        self.task, self.policy, self.teach = task, run.policy, teach
        self.crew = Crew()
        self.folder = task.folder / ROUNDS
        self.origin = find_origin(task)
        self.prompts = collect_round_prompts(task)
        written = run.model_dump(mode="json")
        self.settings = {name: written[name] for name in DECIDING}
        self.rewarder: WeightedRewarder | None = None
        self.weights, self.compares = self.crew.lead(self._open_rewarder)
        engine: Literal["process", "vllm"] = "vllm" if run.sampling.engine == "vllm" else "process"
        self.held = HeldAnswers(task, self.folder, self.settings, self.crew, engine)
        self.journal = Journal(task.folder / "history.jsonl" if self.crew.writes else None)
        self.step = 0
        self.moved = False

    def _open_rewarder(self) -> tuple[dict[str, float], bool]:
        run, folder = self.task.run, self.task.folder
        self.rewarder = open_rewarder(
            run.rewards, folder, failed_share=run.failed_share, resume=self.task.resume, preferences=run.preferences
        )
        return dict(self.rewarder.weights), self.rewarder.compares

    def run(self) -> TrainedRounds:
        """Run all rounds."""
        weights = self.origin
        self.held.write_by_weights(BEFORE, weights, self.origin)
        trained: TrainedPolicy | None = None
        for number in range(1, self.policy.rounds + 1):
            trained = None
            free_memory()
            folder = self.folder / f"{number:03d}"
            if not self.crew.share(read_about(folder).get("trained", False)):
                trained = self._run_round(folder, number, weights)
            weights = self._end_round(folder, number)
        free_memory()
        self.held.write_by_weights(AFTER, weights, self.origin)
        metrics = self.held.compare(self._reward, self.compares)
        saved = weights.adapter or weights.base
        own = (trained.model, trained.policy, trained.accelerator) if trained is not None else self._reopen(weights)
        return TrainedRounds(*own, self.journal.entries, metrics, self.moved, saved)

    def _run_round(self, folder: Path, number: int, weights: Weights) -> TrainedPolicy:
        """Write, reward, select and learn, or do what is left of it."""
        run = self.task.run
        prompts = draw_prompts(self.prompts, number, self.policy.prompts, run.optimisation.seed)
        answered = self._answer(folder, prompts, weights, make_round_seed(run.optimisation.seed, number))
        chosen = select_answers(answered.samples, answered.rewards, self.policy.select, self.weights)
        self.crew.lead(lambda: self._describe(folder, answered, chosen))
        if not chosen.choices:
            why = ", ".join(f"{count} {reason}" for reason, count in chosen.left_out.items()) or "nothing reaches it"
            raise RecipeError(f"{folder.name}: policy.select keeps no answer of round {number}: {why}")
        own = name_start(run, weights).model_copy(update={"output": str(folder / "training")})
        specials = self.task.renderer.tokenizer.all_special_ids
        data = RunData(make_records(answered, chosen, specials), {}, {})
        task = replace(self.task, run=own, base=weights.base, data=data, resume=has_checkpoint(own))
        trained = self.teach(task, None if weights == self.origin else self.origin)
        check_movement(trained.history, trained.moved)
        trained.save(folder / "model")
        if self.crew.writes:
            steps = max(entry["step"] for entry in trained.history)
            write_about(folder, trained=True, steps=steps, moved=trained.moved)
        return trained

    def _answer(self, folder: Path, prompts: Sequence[Prompt], weights: Weights, seed: int) -> Answered:
        sampling = self.task.run.sampling
        writer = open_writer(self.task.run, weights, self.origin, self.task.renderer, sampling, seed)
        at_once = count_prompts_at_once(sampling)
        answered = collect_answers(folder, prompts, self.settings, writer.write, self._reward, at_once, self.crew)
        writer.close()
        free_memory()
        return answered

    def _describe(self, folder: Path, answered: Answered, chosen: Chosen) -> None:
        """Write what is kept, and the counts and figures of the round."""
        write_rows(folder / KEPT, describe_kept(answered, chosen))
        kept = len(chosen.choices)
        pairs = self.policy.select.keep == "best_and_worst"
        write_about(
            folder,
            prompts=len(answered.prompts),
            answers=sum(map(len, answered.written)),
            kept=kept,
            left_out=dict(chosen.left_out),
            figures={**measure_answers(answered), **measure_kept(answered, kept, pairs)},
        )

    def _reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        assert self.rewarder is not None  # only process 0 rewards
        return self.rewarder.reward(prompts, samples, ignore_progress)

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


def collect_round_prompts(task: Task) -> PromptSet:
    """Collect the prompts of the training data, and tell which are left out.

    Raises:
        RecipeError: none is left, or too many are left out.
    """
    found = collect_prompts(task.data.train, task.renderer, task.run.sampling.max_prompt)
    check_prompts(found, task.run.data.most_dropped)
    update_account(task.folder, texts={"prompts": found.report.counts})
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [decode_json(line) for line in path.read_text().splitlines()]
