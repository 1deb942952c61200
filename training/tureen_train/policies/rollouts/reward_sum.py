"""The reward of an answer: the weighted sum over several sources. A source that fails leaves the answer without one."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tureen.json_lines import encode_line
from tureen_train.config import SHARES, RecipeError, check_common_units
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.rollouts.contract import Done, Prompt, Reward
from tureen_train.policies.rollouts.valuing import RewardError, Samples, Value, Valuer
from tureen_train.runs.folder import update_account

MOST_REASONS = 20  # that the account lists for each reward
SHOWN = 3  # that one entry of the log tells

log = logging.getLogger("tureen.train")


@dataclass
class RewardCounts:
    """What became of all answers so far.

    Attributes:
        answers: the number of answers.
        without_reward: those of which a reward failed.
        truncated: by reward, the texts that were cut before they were read.
        failed: by reward, the number of failures for each reason.
        further: by reward, what else its source counts.
    """

    answers: int = 0
    without_reward: int = 0
    truncated: dict[str, int] = field(default_factory=dict)
    failed: dict[str, dict[str, int]] = field(default_factory=dict)
    further: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(
        self,
        rewards: Sequence[Reward],
        values: Mapping[str, Sequence[Value]],
        further: Mapping[str, Mapping[str, int]],
    ) -> None:
        """Count a batch. ``values`` has for each name the values of all answers."""
        self.answers += len(rewards)
        self.without_reward += sum(each.total is None for each in rewards)
        for name, found in values.items():
            self.truncated[name] = self.truncated.get(name, 0) + sum(each.truncated for each in found)
            reasons = Counter(self.failed.get(name, {}))
            for each in found:
                if each.number is None:
                    known = each.error in reasons or len(reasons) < MOST_REASONS
                    reasons[each.error if known else "other reasons"] += 1
            self.failed[name] = dict(reasons)
        for name, counted in further.items():
            self.further[name] = dict(Counter(self.further.get(name, {})) + Counter(counted))


@dataclass(frozen=True)
class LastBatch:
    """The batch that was counted last. A run that was killed before it noted the rewards asks for them again.

    Attributes:
        digest: of its prompts and answers.
        before: the counts before it.
    """

    digest: str
    before: RewardCounts


class WeightedRewarder:
    """Rewards answers by several sources; see :class:`.contract.Rewarder`.

    Args:
        valuers: read the sources.
        weights: the weight of each reward.
        units: what each reward is measured in; rewards with a weight must have one unit.
        folder: the run's, whose ``account.json`` tells the counts.
        failed_share: a batch of which this share or more has no reward ends the run.
        counts: those of an earlier, broken run.
        last: the last batch of that run. If the first batch is the same, it is not counted twice.
    """

    def __init__(
        self,
        valuers: Sequence[Valuer],
        weights: Mapping[str, float],
        units: Mapping[str, str | None],
        folder: Path,
        failed_share: float,
        counts: RewardCounts,
        last: LastBatch | None = None,
    ) -> None:
        self.valuers = valuers
        self.weights = weights
        self.units = units
        self.folder = folder
        self.failed_share = failed_share
        self.counts = counts
        self._last = last

    @property
    def names(self) -> Sequence[str]:
        """The names of the rewards, in the order of the recipe."""
        return list(self.weights)

    def narrow(self, names: Collection[str]) -> "WeightedRewarder":
        """Make a rewarder of some of the rewards; the models of the others are not run. Both count together.

        A model with several rewards is kept whole as soon as one of them is wanted.
        """
        valuers = [each for each in self.valuers if any(name in names for name in each.names)]
        kept = {name for each in valuers for name in each.names}
        weights = {name: weight for name, weight in self.weights.items() if name in kept}
        return WeightedRewarder(valuers, weights, self.units, self.folder, self.failed_share, self.counts)

    @property
    def compares(self) -> bool:
        """Whether a reward compares the answers to a prompt, so that a single answer has none."""
        return SHARES in self.units.values()

    def reward(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> list[list[Reward]]:
        """See :class:`.contract.Rewarder`.

        Raises:
            RewardError: too many answers have no reward, or a source says that no later batch would fare better.
            RecipeError: a prompt weighs a reward that there is not, or rewards without a common scale.
        """
        weights = [self._weigh(prompt) for prompt in prompts]
        count = sum(map(len, samples))
        spread = spread_progress(done, count, count * len(self.valuers))
        values: dict[str, list[list[Value]]] = {}
        further: dict[str, Mapping[str, int]] = {}
        for valuer in self.valuers:
            found = valuer.value_samples(prompts, samples, spread)
            values |= found.values
            further |= found.counts
        rewards = [
            [
                self._sum(own, {name: values[name][at][number] for name in self.weights})
                for number in range(len(answers))
            ]
            for at, (own, answers) in enumerate(zip(weights, samples, strict=True))
        ]
        flat = {name: [each for row in values[name] for each in row] for name in self.weights}
        told = [each for row in rewards for each in row]
        self._count(_digest_batch(prompts, samples), told, flat, further)
        self._check(told, flat)
        return rewards

    def _count(
        self,
        digest: str,
        rewards: Sequence[Reward],
        values: Mapping[str, Sequence[Value]],
        further: Mapping[str, Mapping[str, int]],
    ) -> None:
        """Count a batch, and write it into the account."""
        if self._last is not None and self._last.digest == digest:
            self.counts = self._last.before
        last = LastBatch(digest, deepcopy(self.counts))
        self._last = None  # only a run that goes on sees its last batch again
        self.counts.add(rewards, values, further)
        update_account(self.folder, rewards=asdict(self.counts), last_rewarded=asdict(last))

    def _weigh(self, prompt: Prompt) -> Mapping[str, float]:
        """The weight of each reward for a prompt; 0 for one that its own weights leave out."""
        if prompt.weights is None:
            return self.weights
        for name, weight in prompt.weights.items():
            if name not in self.weights:
                known = ", ".join(self.weights)
                raise RecipeError(f"rewards: {prompt.id} weighs {name!r}, which is none of the rewards: {known}")
            if not math.isfinite(weight):
                raise RecipeError(f"rewards: {prompt.id} gives {name} the weight {weight}, not a finite number")
        check_common_units({name: self.units[name] for name, weight in prompt.weights.items() if weight})
        return {name: prompt.weights.get(name, 0.0) for name in self.weights}

    @staticmethod
    def _sum(weights: Mapping[str, float], values: Mapping[str, Value]) -> Reward:
        numbers = {name: each.number for name, each in values.items() if each.number is not None}
        errors = [f"{name}: {each.error}" for name, each in values.items() if each.number is None]
        if errors:
            return Reward(numbers, None, "; ".join(errors))
        return Reward(numbers, math.fsum(weights[name] * number for name, number in numbers.items()))

    def _check(self, rewards: Sequence[Reward], values: Mapping[str, Sequence[Value]]) -> None:
        """Log what was cut and what failed, and end the run if too much did."""
        for name, found in values.items():
            if cut := sum(each.truncated for each in found):
                log.warning(
                    "%s: %d of %d texts are longer than the reward model reads, and were cut", name, cut, len(found)
                )
        reasons = Counter(each.error for each in rewards if each.total is None)
        if not reasons:
            return
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(SHOWN))
        log.warning("%d of %d answers have no reward: %s", reasons.total(), len(rewards), told)
        if reasons.total() >= self.failed_share * len(rewards):
            raise RewardError(
                f"rewards: {reasons.total()} of {len(rewards)} answers of a batch have no reward: {told};"
                " mend the cause and go on with --resume, or raise failed_share"
            )


def _digest_batch(prompts: Sequence[Prompt], samples: Samples) -> str:
    texts = [[prompt.id, *[each.text for each in own]] for prompt, own in zip(prompts, samples, strict=True)]
    return hashlib.sha256(encode_line({"texts": texts})).hexdigest()
