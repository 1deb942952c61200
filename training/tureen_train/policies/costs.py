"""What a recipe will cost: the answers that its policy writes, their tokens, and the requests to judges.

Only the data and the tokenizer are read, and no weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import (
    ExpertRun,
    GrpoPolicy,
    IterativeDpoPolicy,
    JudgeSource,
    PpoPolicy,
    RejectionPolicy,
    RicPolicy,
    RlooPolicy,
)
from tureen_train.policies.group_prompts import order_prompts
from tureen_train.policies.rollouts.prompts import PromptSet, check_prompts, collect_prompts
from tureen_train.policies.run import state_preferences
from tureen_train.records.run_data import load_data
from tureen_train.runs.folder import find_base
from tureen_train.runs.rereading import make_expert_reading


@dataclass(frozen=True)
class Workload:
    """How many prompts are answered, each one time counted.

    Attributes:
        training: the prompts that are answered in training, ``sampling.count`` times each.
        held: the answers to held-out prompts.
        held_pairs: the pairs of such answers that a judge compares.
    """

    training: int
    held: int
    held_pairs: int = 0


@dataclass(frozen=True)
class Cost:
    """What a recipe costs.

    Attributes:
        prompts: the training prompts that are there.
        left_out: what is left out of them, in words.
        answers: the answers that are written in training.
        held: the answers to held-out prompts.
        tokens: the most tokens that all answers can have.
        judge_calls: by reward, the most requests that its judge can get.
    """

    prompts: int
    left_out: str
    answers: int
    held: int
    tokens: int
    judge_calls: Mapping[str, int]

    def list_rows(self) -> list[tuple[str, str]]:
        """List the figures as rows of a table."""
        rows = [
            ("training prompts", f"{self.prompts:,}"),
            ("left out", self.left_out or "none"),
            ("answers in training", f"{self.answers:,}"),
            ("answers to held-out prompts", f"{self.held:,}"),
            ("tokens of all answers, at most", f"{self.tokens:,}"),
        ]
        calls = [
            (f"requests to the judge of {name}, at most", f"{count:,}") for name, count in self.judge_calls.items()
        ]
        return rows + (calls or [("requests to judges", "0")])


def estimate_cost(run: ExpertRun) -> Cost:
    """Estimate what a recipe costs whose policy writes answers.

    Raises:
        DataError: a file cannot be read.
        RecipeError: no prompt is left, too many are left out, or they do not fill one step.
    """
    base = find_base(run)
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    data = state_preferences(load_data(run.data, prompts=not run.policy.uses_answers), run.preferences)
    found = collect_prompts(data.train, renderer, run.sampling.max_prompt)
    check_prompts(found, run.data.most_dropped)
    longest = run.sampling.max_prompt
    held = sum(len(collect_prompts(records, renderer, longest).prompts) for records in data.eval.values())
    work = _plan(run, found, held)
    answers = work.training * run.sampling.count
    pairs = work.training * comb(run.sampling.count, 2) + work.held_pairs
    return Cost(
        len(found.prompts),
        found.report.reasons,
        answers,
        work.held,
        (answers + work.held) * run.sampling.max_tokens,
        {
            source.name: pairs * (2 if source.orders == "both" else 1)
            for source in run.rewards
            if isinstance(source, JudgeSource)
        },
    )


def _plan(run: ExpertRun, found: PromptSet, held: int) -> Workload:
    policy, there = run.policy, len(found.prompts)
    if isinstance(policy, RejectionPolicy | IterativeDpoPolicy):
        return Workload(policy.rounds * min(policy.prompts or there, there), 2 * held, held)
    if isinstance(policy, PpoPolicy):
        watch = run.watch
        between = (policy.steps - 1) // watch.eval_every if watch.eval_every else 0
        return Workload(policy.steps * min(policy.prompts, there), held * (2 + between), held)
    if isinstance(policy, RicPolicy):
        drawn = policy.online.rounds * policy.online.prompts if policy.online else 0
        return Workload(drawn, 2 * held)
    if isinstance(policy, GrpoPolicy | RlooPolicy):
        return Workload(len(order_prompts(found.prompts, run)), 2 * held, held)
    return Workload(0, 0)
