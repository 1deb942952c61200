"""P-MORL's reward (RLPHF, arXiv 2310.11564): the mean over the preferences that a prompt states, each read alone.

For each sentence in the prompt, the reward model reads the prompt with only this sentence, and the answer after it. The
published training loop scores the prompt without the answer, and divides by 3 whatever it found.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.preference_sentences import SentenceFinder
from tureen_train.policies.rollouts.contract import Done, Prompt
from tureen_train.policies.rollouts.valuing import Samples, Value, Valued, Valuer

NONE_FOUND = "the prompt states none of the preferences"


class EachPreferenceValuer:
    """Values answers by each preference of their prompt alone, and takes the mean.

    Args:
        inner: reads the rewards.
        finder: finds the preferences.
    """

    def __init__(self, inner: Valuer, finder: SentenceFinder) -> None:
        self.inner = inner
        self.finder = finder

    @property
    def names(self) -> Sequence[str]:
        """The names of the rewards."""
        return self.inner.names

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`. An answer to a prompt that states no preference has no value."""
        poles = [self.finder.find_poles(prompt.messages) for prompt in prompts]
        alone = [
            replace(prompt, id=f"{prompt.id}+{pole}", messages=self.finder.keep_one(prompt.messages, pole))
            for prompt, found in zip(prompts, poles, strict=True)
            for pole in found
        ]
        repeated = [answers for answers, found in zip(samples, poles, strict=True) for _ in found]
        count, texts = sum(map(len, samples)), sum(map(len, repeated))
        read = self.inner.value_samples(alone, repeated, spread_progress(done, count, texts))
        if not texts:
            done(count)
        stated = Counter(_describe(len(found)) for found in poles)
        return Valued(
            {name: _average(samples, [len(found) for found in poles], values) for name, values in read.values.items()},
            {name: {**read.counts.get(name, {}), **stated} for name in self.names},
        )


def _describe(count: int) -> str:
    return f"prompts that state {count} preference{'' if count == 1 else 's'}"


def _average(samples: Samples, found: Sequence[int], values: Sequence[Sequence[Value]]) -> list[list[Value]]:
    """Average the values of each answer over the preferences of its prompt, of which there are ``found``."""
    rows = iter(values)
    taken = [list(islice(rows, count)) for count in found]
    return [
        [average_values([row[number] for row in each]) for number in range(len(answers))]
        for answers, each in zip(samples, taken, strict=True)
    ]


def average_values(values: Sequence[Value]) -> Value:
    """The mean of some values; a failure if one of them failed, or there is none."""
    if not values:
        return Value(None, NONE_FOUND)
    truncated = any(each.truncated for each in values)
    numbers = [each.number for each in values if each.number is not None]
    if len(numbers) < len(values):
        return Value(None, next(each.error for each in values if each.number is None), truncated)
    return Value(math.fsum(numbers) / len(numbers), truncated=truncated)
