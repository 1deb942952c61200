"""The loop of PPO: prompts → answers → rewards → passes, with its log, evaluations and checkpoints."""

import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tureen_train.config import ExpertRun, PpoPolicy
from tureen_train.policies.held_answers import AFTER, BEFORE, HeldAnswers
from tureen_train.policies.method import Metrics
from tureen_train.policies.ppo.checkpoints import Checkpoints
from tureen_train.policies.ppo.collector import Collector, RewardedAnswer
from tureen_train.policies.ppo.learner import PpoLearner
from tureen_train.policies.ppo.schedule import list_rate_shares
from tureen_train.policies.ppo.step import Stepper, describe_answers
from tureen_train.policies.rollouts.draws import make_round_seed
from tureen_train.policies.rollouts.prompts import PromptSet, draw_prompts
from tureen_train.runs.folder import ROLLOUTS, update_account
from tureen_train.runs.history import Journal
from tureen_train.terminal import show_progress

log = logging.getLogger("tureen.train")


@dataclass
class Standing:
    """Where a run stands.

    Attributes:
        step: the steps that are done.
        moved: whether a gradient other than 0 was seen.
        counts: what became of the answers so far.
    """

    step: int = 0
    moved: bool = False
    counts: Counter[str] = field(default_factory=Counter)


class PpoTrainer:
    """Trains a policy by PPO. Every rank must call the same methods.

    Args:
        run: the recipe.
        learner: holds the policy and the critic.
        collector: writes and rewards answers.
        prompts: of the training data.
        held: the answers to held-out prompts.

    Attributes:
        standing: where the run stands.
        journal: the entries of the log.
    """

    def __init__(
        self,
        run: ExpertRun,
        learner: PpoLearner,
        collector: Collector,
        prompts: PromptSet,
        held: HeldAnswers,
    ) -> None:
        assert isinstance(run.policy, PpoPolicy)
        self.run, self.policy, self.names = run, run.policy, collector.names
        self.learner, self.collector, self.prompts, self.held = learner, collector, prompts, held
        seed = run.optimisation.seed
        self.stepper = Stepper(learner, run.policy, seed, run.optimisation.batch)
        self.folder = Path(run.output)
        self.checkpoints = Checkpoints(self.folder, learner, run.watch.keep)
        self.standing = Standing()
        self.main = learner.accelerator.is_main_process
        self.journal = Journal(self.folder / "history.jsonl" if self.main else None)

    def train(self, resume: bool) -> None:
        """Run all steps, or those that are left.

        Raises:
            RewardError: too many answers have no reward.
            FloatingPointError: the policy or its critic is broken.
        """
        begun = time.monotonic()
        self._start(resume)
        shares = list_rate_shares(self.run.optimisation, self.policy.steps)
        if not self.standing.step and self.run.watch.eval_at_start:
            self._log_held(BEFORE)
        with show_progress() as bars:
            bar = bars.add_task("steps", total=self.policy.steps, completed=self.standing.step, visible=self.main)
            while self.standing.step < self.policy.steps:
                self._run_step(self.standing.step + 1, shares[self.standing.step])
                bars.advance(bar)
        losses = [entry["loss"] for entry in self.journal.entries if "loss" in entry]
        runtime = {"train_runtime": time.monotonic() - begun, "train_loss": sum(losses) / len(losses)}
        self.journal.log({**runtime, "step": self.policy.steps})

    def _start(self, resume: bool) -> None:
        """Answer the held-out prompts; then restore the last checkpoint, or begin without an earlier run's answers."""
        if self.main and not resume:
            shutil.rmtree(self.folder / ROLLOUTS, ignore_errors=True)
        self.learner.accelerator.wait_for_everyone()
        self.collector.write_held(self.held, BEFORE)
        if not resume:
            return
        state = self.checkpoints.load_last()
        if state is not None:
            self.standing = Standing(state["step"], state["moved"], Counter(state["counts"]))
            self.stepper.control.load_state_dict(state["control"])
            self.stepper.scale.load_state_dict(state["scale"])
        self.journal.restore(state["history"] if state is not None else [])
        if self.main:
            log.info("the run goes on after step %d", self.standing.step)

    def _run_step(self, step: int, share: float) -> None:
        watch = self.run.watch
        self.learner.set_rate(share)
        prompts = draw_prompts(self.prompts, step, self.policy.prompts, self.run.optimisation.seed)
        folder, seed = self.folder / ROLLOUTS / f"step-{step:05d}", make_round_seed(self.run.optimisation.seed, step)
        answers = self.collector.collect(folder, prompts, seed)
        entry, left_out = self.stepper.run(step, answers)
        rate = self.run.optimisation.learning_rate * share
        self.journal.log({**describe_answers(answers), **entry, **left_out, "learning_rate": rate, "step": step})
        self._count(answers, left_out)
        self.standing.step = step
        self.standing.moved |= entry["grad_norm"] > 0
        if step % watch.log_every == 0 or step == 1:
            log.info("step %d: %s", step, _tell(entry, answers, self.names))
        due = watch.eval_every and step % watch.eval_every == 0 and step < self.policy.steps
        if due and not self.collector.compares:
            self.collector.write_held(self.held, f"held-{step:05d}")
            self._log_held(f"held-{step:05d}")
        if watch.save_every and step % watch.save_every == 0:
            self.checkpoints.save(step, self._describe_state())

    def _describe_state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {
            "step": self.standing.step,
            "moved": self.standing.moved,
            "counts": self.standing.counts,
            "control": self.stepper.control.state_dict(),
            "scale": self.stepper.scale.state_dict(),
            "history": self.journal.entries,
        }

    def _count(self, answers: Sequence[RewardedAnswer], left_out: Mapping[str, int]) -> None:
        """Add the answers of a step to the account."""
        self.standing.counts.update(
            written=len(answers),
            tokens=sum(len(each.sample.ids) for each in answers),
            unfinished=sum(not each.sample.finished for each in answers),
            empty=sum(each.sample.empty for each in answers),
            **left_out,
        )
        update_account(self.folder, answers=dict(self.standing.counts))

    def compare_held(self) -> Metrics:
        """Answer the held-out prompts after the last step. Returns their figures before and after training."""
        self.collector.write_held(self.held, AFTER)
        self._log_held(AFTER)
        return self.held.compare(self.collector.reward, self.collector.compares)

    def _log_held(self, when: str) -> None:
        """Log the rewards of the answers to held-out prompts; a single answer has none where a reward compares them."""
        if self.collector.compares:
            return
        for name, found in self.held.reward(when, self.collector.reward).items():
            figures = {f"eval_{name}_{key}": value for key, value in found.items()}
            self.journal.log({**figures, "step": self.standing.step})
            if self.main:
                log.info("%s after step %d: reward %.4g", name, self.standing.step, found.get("reward", math.nan))


def _tell(entry: Mapping[str, float], answers: Sequence[RewardedAnswer], names: Sequence[str]) -> str:
    """A step as one line of the log."""
    told = {**describe_answers(answers), **entry}
    shown = ["reward", *[f"reward_{name}" for name in names if len(names) > 1]]
    shown += ["kl", "kl_coefficient", "length", "entropy", "clip_share", "value_loss", "explained_variance"]
    return ", ".join(f"{name} {told[name]:.4g}" for name in shown if name in told)
